"""The train-mode check: one step of a path does what the same step of the source does, and moves nothing else."""

import inspect
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rsconvert.compatibility.exactness import scramble
from rsconvert.errors import first_line
from rsconvert.models import as_call, example_arguments
from rsconvert.surgery import SwitchableModel, equal_outputs, fitted_inside

__all__ = ["TrainingCheck", "check_training", "training_arguments"]


@dataclass(frozen=True)
class TrainingCheck:
    """What a step in train mode showed.

    ``same`` is None if the source itself can't take it; ``words`` tell the reason, or what differs.
    """

    resolution: int
    same: bool | None
    words: str


@dataclass(frozen=True)
class _Step:
    output: Any
    gradients: Mapping[str, int]


def check_training(source: nn.Module, net: SwitchableModel, resolution: int, batch: int = 2) -> TrainingCheck:
    """Take one step forward and back with the source and with a path, from the same values and the same seed.

    Outputs and gradients, those of convolutions as those of BatchNorms, must be equal, bit for bit; the statistics that
    the source moves must be equal in the path; and no other tensor of the network may change.

    Args:
        source: the ordinary model for ``resolution``, over the values that ``net`` was made from. Both are
            used up: their BatchNorm tensors are overwritten.
        resolution: in pixels, a trained one.
        batch: images of the step.
    """
    scramble(source, net, resolution)
    before = _fingerprints(net.state_dict())
    try:
        wanted = _step(source, source, resolution, batch)
    except Exception as error:  # whatever the model's own code raises
        return TrainingCheck(resolution, None, f"{type(error).__name__}: {first_line(error)}")
    if not _finite(wanted.output):
        return TrainingCheck(resolution, None, "the outputs hold no finite number")
    path = net.train().at(resolution)
    try:
        got = _step(path, source, resolution, batch)
    except Exception as error:
        return TrainingCheck(resolution, False, f"the path alone fails: {type(error).__name__}: {first_line(error)}")
    difference = _difference(wanted, got) or _wrong_state(source, path, net, before)
    return TrainingCheck(resolution, difference is None, difference or "same output, gradients and statistics")


def training_arguments(model: nn.Module, resolution: int, batch: int) -> tuple[Any, ...]:
    """Return the arguments of ``forward`` in train mode: detectors take targets beside their images."""
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


def _step(model: nn.Module, source: nn.Module, resolution: int, batch: int) -> _Step:
    with torch.random.fork_rng(devices=[]), fitted_inside(model, resolution):
        torch.manual_seed(0)
        output = model.train()(*training_arguments(source, resolution, batch))
        leaves = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
        loss = torch.stack([t.float().square().mean() for t in leaves]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    gradients = _fingerprints({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    model.zero_grad()
    return _Step(output, gradients)


def _difference(wanted: _Step, got: _Step) -> str | None:
    if not equal_outputs(wanted.output, got.output):
        return "the output differs"
    if wanted.gradients.keys() != got.gradients.keys():
        return "other parameters have gradients"
    for name, gradient in wanted.gradients.items():
        if gradient != got.gradients[name]:
            return f"the gradient of {name} differs"
    return None


def _wrong_state(source: nn.Module, path: nn.Module, net: SwitchableModel, before: Mapping[str, int]) -> str | None:
    """Return what the step left in the network that it did not leave in the source."""
    wanted, got = source.state_dict(), path.state_dict(keep_vars=True)
    for name, tensor in wanted.items():
        if not equal_outputs(tensor, got[name].detach()):
            return f"{name} is another after the step"
    active = {id(tensor) for tensor in got.values()}
    after, tensors = _fingerprints(net.state_dict()), net.state_dict(keep_vars=True)
    for name, fingerprint in after.items():
        if fingerprint != before[name] and id(tensors[name]) not in active:
            return f"{name} of another set has moved"
    return None


def _finite(output: Any) -> bool:
    return any(bool(leaf.isfinite().any()) for leaf in tree_leaves(output) if isinstance(leaf, Tensor))


def _fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return checksums: copies of all tensors would double the memory of a large network."""
    return {name: zlib.crc32(t.detach().reshape(-1).view(torch.uint8).numpy().data) for name, t in tensors.items()}
