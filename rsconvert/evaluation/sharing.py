"""An evaluation shared by processes: what they must agree on, their answers joined in the order of the data."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from rsconvert.checkpoint import digest
from rsconvert.data import Samples, Size, Stream, share_of_batches
from rsconvert.errors import ConfigError, DataError
from rsconvert.evaluation.answers import Answers
from rsconvert.evaluation.distributed import Meeting, Processes

__all__ = ["check_alike", "joined_answers", "rounds", "whole_order"]


def check_alike(networks: Mapping[str, nn.Module], samples: Samples, processes: Processes, meet: Meeting) -> None:
    """See that all processes hold the same networks and images, which they can read by index.

    Raises:
        DataError: the images can only be read in order, or differ.
        ConfigError: the networks differ.
    """
    if processes.world_size == 1:
        return
    if isinstance(samples, Stream):
        raise DataError(
            f"{samples.label} can only be read in order; {processes.world_size} processes share images by their index. "
            "Evaluate in one process, or give a folder or hfds/ in place of hfids/."
        )
    if len(counts := set(meet((len(samples), samples.classes)))) > 1:
        told = ", ".join(sorted(str(count) for count, _ in counts))
        raise DataError(f"the processes see different images ({told} of them); all need the same. Share the folder.")
    values = {name: digest(network.state_dict()) for name, network in networks.items()}
    held = meet(values)
    if different := [name for name in values if len({each.get(name) for each in held}) > 1]:
        raise ConfigError(
            f"{different[0]} has other values in one process than in another; one network is needed. Load the same "
            "file in all, or broadcast its parameters and buffers."
        )


def rounds(count: int, batch_size: int, processes: Processes) -> int:
    """Return the number of batches of the process that has most of them."""
    return len(range(0, count, batch_size * processes.world_size))


def whole_order(count: int, batch_size: int, processes: Processes) -> Tensor:
    """Return, for each image (N,), its place among the shares of all processes put one behind the other."""
    size = processes.world_size
    shares = [share_of_batches(count, batch_size, rank=rank, world_size=size) for rank in range(size)]
    return torch.tensor([index for share in shares for index in share]).argsort()


def joined_answers(
    own: Mapping[Size | None, Answers], order: Tensor, processes: Processes, meet: Meeting
) -> dict[Size | None, Answers]:
    """Return a network's answers to all images, by size; the first process alone gets logits.

    Args:
        own: the answers to the images of this process, those of a process without images included.
        order: see `whole_order`.
    """
    found: dict[Size | None, Answers] = {}
    for size, answers in own.items():
        parts: Sequence[Answers] = meet(answers)  # size by size, for logits are large
        if not processes.leads:
            parts = [replace(part, logits=None) for part in parts]
        found[size] = Answers.joined(parts).taken(order)
    return found
