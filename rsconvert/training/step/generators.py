"""The global random generators that dropout draws from: their states, kept and put back."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["generator_states", "restored_generators", "set_generators"]


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the CPU's generator and, for a GPU, of its own."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_generators(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Go on from given states; a generator without one is left as it is."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


@contextmanager
def restored_generators(states: Mapping[str, Tensor], device: torch.device) -> Iterator[None]:
    """Draw from given states; at the end the generators go on from where they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        set_generators(states, device)
        yield
