"""Bias correction: how far rounded weights shift the mean of each BatchNorm's input, corrected in the private means."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rsconvert.errors import CheckpointError
from rsconvert.surgery import SwitchableModel, batchnorms

__all__ = ["Shifts", "apply_shifts", "measure_shifts"]

Shifts = Mapping[str, Mapping[str, Sequence[float]]]
"""Resolution as text → name of a BatchNorm → what to add to the mean of each of its channels."""


@torch.no_grad()
def measure_shifts(net: SwitchableModel, rounded: SwitchableModel, batches: Iterable[Mapping[int, Tensor]]) -> Shifts:
    """Return by how much the input of each BatchNorm has another mean in a copy with rounded weights.

    From the first to the last: each BatchNorm is measured with those before it corrected (bias correction as of Nagel
    et al., ICCV 2019, sec. 4.2).

    Args:
        rounded: `with_rounded_weights` of the network; both are in eval mode.
        batches: resolution → images (N, 3, H, W), normalized, on the CPU.
    """
    sums: dict[str, dict[str, Any]] = {str(side): defaultdict(float) for side in net.resolutions}
    count = 0
    for views in batches:
        for side, images in views.items():
            means = _input_means(net.at(side), images)
            with _following(rounded.at(side), means) as found:
                rounded.at(side)(images)
            for name, shift in found.items():
                sums[str(side)][name] += shift * len(images)
        count += len(images)
    return {
        side: {name: [float(f"{v:.4g}") for v in (total / count).tolist()] for name, total in found.items()}
        for side, found in sums.items()
    }


@torch.no_grad()
def apply_shifts(rounded: SwitchableModel, shifts: Shifts) -> None:
    """Add shifts to the running means of a network, in place; a mean that several paths share gets their average.

    Raises:
        CheckpointError: they belong to another network.
    """
    found: dict[int, tuple[Tensor, list[Tensor]]] = {}
    for side in rounded.resolutions:
        means = _running_means(rounded.at(side))
        for name, values in shifts.get(str(side), {}).items():
            mean = means[name].running_mean if name in means else None
            if mean is None or len(mean) != len(values):
                raise CheckpointError(
                    f"int8 in the checkpoint shifts {len(values)} means of {name!r}, which the network has not. Run "
                    "rsconvert quantize again."
                )
            found.setdefault(id(mean), (mean, []))[1].append(mean.new_tensor(values))
    for mean, each in found.values():
        mean.add_(torch.stack(each).mean(0))


def _running_means(path: nn.Module) -> dict[str, Any]:
    """Return the BatchNorms of a path that have a running mean, each once."""
    once = {id(bn): (name, bn) for name, bn in reversed(batchnorms(path).items())}
    return {name: bn for name, bn in once.values() if isinstance(getattr(bn, "running_mean", None), Tensor)}


def _input_means(path: nn.Module, images: Tensor) -> dict[str, list[Tensor]]:
    """Return the mean of each channel of what each BatchNorm receives, at each of its calls."""
    means: dict[str, list[Tensor]] = defaultdict(list)
    with ExitStack() as hooks:
        for name, bn in _running_means(path).items():
            hooks.enter_context(_before(bn, means[name].append))
        path(images)
    return means


@contextmanager
def _following(path: nn.Module, means: Mapping[str, Sequence[Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Move the means of a path, for one forward, by how far those of its inputs are from ``means``; yield by how much.

    What is yielded has, afterwards, the average over the calls of each BatchNorm that ran.
    """
    shifts: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, bn in _running_means(path).items():
            stack.enter_context(_before(bn, _mover(name, bn, iter(means.get(name, ())), shifts)))
            stack.callback(bn.running_mean.copy_, bn.running_mean.clone())
        yield shifts


def _mover(name: str, bn: Any, wanted: Iterator[Tensor], shifts: dict[str, Tensor]) -> Callable[[Tensor], None]:
    own, seen = bn.running_mean.clone(), []

    def move(mean: Tensor) -> None:
        seen.append(mean - next(wanted))
        bn.running_mean.copy_(own + seen[-1])
        shifts[name] = torch.stack(seen).mean(0)

    return move


@contextmanager
def _before(bn: nn.Module, take: Callable[[Tensor], None]) -> Iterator[None]:
    """Hand the mean of each channel of a BatchNorm's input to a function, before each of its calls."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x: Tensor = next(iter((*args, *kwargs.values())))
        take(x.double().mean([0, *range(2, x.ndim)]))

    handle = bn.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
