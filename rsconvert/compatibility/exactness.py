"""Checks of a network against its source, bit for bit: outputs in eval mode on batches, one step in train mode."""

import inspect
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rsconvert.errors import first_line
from rsconvert.models import as_call, example_arguments
from rsconvert.surgery import SwitchableModel, batchnorms, equal_outputs, fitted_inside, run_trial, scrambled, write

__all__ = ["TrainingCheck", "check_training", "exact_in_batches", "scramble", "training_arguments"]


@torch.no_grad()
def exact_in_batches(net: SwitchableModel, source_at: Callable[[int], nn.Module], batch: int = 2) -> dict[int, bool]:
    """Compare every path with the source in eval mode, bit for bit, with γ, β, μ, σ² different in each set.

    The outputs are compared, and the sums of every BatchNorm's output: a detector may find nothing in noise.

    Args:
        net: its BatchNorm tensors are overwritten.
        source_at: returns the ordinary model for a resolution in pixels, over the values that the network was made
            from; overwritten too.
    """
    net.eval()
    exact = {}
    for resolution in net.resolutions:
        source = source_at(resolution).eval()
        scramble(source, net, resolution)
        arguments = example_arguments(source, resolution, batch)
        wanted, got = (run_trial(model, arguments, resolution) for model in (source, net.at(resolution)))
        finite = bool(torch.tensor([value for _, value in wanted.sums]).isfinite().any())
        same = equal_outputs(wanted.output, got.output) and equal_outputs(wanted.sums, got.sums)
        exact[resolution] = wanted.failure is None and got.failure is None and finite and same
    return exact


def scramble(source: nn.Module, net: SwitchableModel, resolution: int) -> None:
    """Give every set of a network values of its own, and the source those of one resolution.

    The source is written by its own names, the network by those of its file: a path with a wrong set differs.
    """
    owners = [f"{name}." if name else "" for name in batchnorms(source)]
    values = {r: scrambled(source, r) for r in net.resolutions}
    for r, own in values.items():
        owner_of = {name: max(filter(name.startswith, owners), key=len) for name in own}
        place = "" if r == net.native else f"at.{r}."
        write(net, {f"{owner}{place}{name.removeprefix(owner)}": own[name] for name, owner in owner_of.items()})
    write(source, values[resolution])


@dataclass(frozen=True)
class TrainingCheck:
    """What a step in train mode showed, in ``words``; ``same`` is None if the source itself can't take it."""

    resolution: int
    same: bool | None
    words: str


def check_training(source: nn.Module, net: SwitchableModel, resolution: int, batch: int = 2) -> TrainingCheck:
    """Take one step forward and back with the source and with a path, from the same values and the same seed.

    Outputs and gradients, those of convolutions as those of BatchNorms, must be equal, bit for bit; the statistics that
    the source moves must be equal in the path; and no other tensor of the network may change.

    Args:
        source: the ordinary model for ``resolution``, over the values that ``net`` was made from. The BatchNorm
            tensors of both are overwritten.
    """
    scramble(source, net, resolution)
    before = _checksums(net.state_dict())
    try:
        wanted, gradients = _step(source, source, resolution, batch)
    except Exception as error:  # whatever the model's own code raises
        return TrainingCheck(resolution, None, f"{type(error).__name__}: {first_line(error)}")
    if not any(leaf.isfinite().any() for leaf in tree_leaves(wanted) if isinstance(leaf, Tensor)):
        return TrainingCheck(resolution, None, "the outputs hold no finite number")
    path = net.train().at(resolution)
    try:
        got, found = _step(path, source, resolution, batch)
    except Exception as error:
        return TrainingCheck(resolution, False, f"the path alone fails: {type(error).__name__}: {first_line(error)}")
    difference = None if equal_outputs(wanted, got) else "the output differs"
    difference = difference or _other_gradients(gradients, found) or _wrong_state(source, path, net, before)
    return TrainingCheck(resolution, difference is None, difference or "same output, gradients and statistics")


def training_arguments(model: nn.Module, resolution: int, batch: int) -> tuple[Any, ...]:
    """Return the arguments of ``forward`` in train mode: detectors take targets next to their images."""
    arguments, _ = as_call(example_arguments(model, resolution, batch))
    if "targets" not in inspect.signature(model.forward).parameters:
        return arguments
    side = resolution / 2
    target = {
        "boxes": torch.tensor([[side / 4, side / 4, side, side]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, resolution, resolution, dtype=torch.uint8),
        "keypoints": torch.full((1, 17, 3), side / 2),
    }
    return (*arguments, [target] * batch)


def _step(model: nn.Module, source: nn.Module, resolution: int, batch: int) -> tuple[Any, dict[str, int]]:
    """Return the output of a step, and the checksums of its gradients."""
    with torch.random.fork_rng(devices=[]), fitted_inside(model, resolution):
        torch.manual_seed(0)
        output = model.train()(*training_arguments(source, resolution, batch))
        leaves = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
        loss = torch.stack([t.float().square().mean() for t in leaves]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    gradients = _checksums({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    model.zero_grad()
    return output, gradients


def _other_gradients(wanted: Mapping[str, int], got: Mapping[str, int]) -> str | None:
    if wanted.keys() != got.keys():
        return "other parameters have gradients"
    return next((f"the gradient of {name} differs" for name, value in wanted.items() if value != got[name]), None)


def _wrong_state(source: nn.Module, path: nn.Module, net: SwitchableModel, before: Mapping[str, int]) -> str | None:
    """Return what the step left in the network that it did not leave in the source."""
    got = path.state_dict(keep_vars=True)
    for name, tensor in source.state_dict().items():
        if not equal_outputs(tensor, got[name].detach()):
            return f"{name} is another after the step"
    active = {id(tensor) for tensor in got.values()}
    after, tensors = _checksums(net.state_dict()), net.state_dict(keep_vars=True)
    moved = (name for name in after if after[name] != before[name] and id(tensors[name]) not in active)
    return next((f"{name} of another set has moved" for name in moved), None)


def _checksums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return checksums: copies of all tensors would double the memory of a large network."""
    return {name: zlib.crc32(t.detach().reshape(-1).view(torch.uint8).numpy().data) for name, t in tensors.items()}
