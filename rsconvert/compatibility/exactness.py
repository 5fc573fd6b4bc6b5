"""Exactness on batches: with other values in every set, each path of a network computes what the source computes."""

from collections.abc import Callable

import torch
from torch import nn

from rsconvert.models import example_arguments
from rsconvert.surgery import SwitchableModel, batchnorms, equal_outputs, fitted_inside, run_trial, scrambled, write

__all__ = ["exact_in_batches", "scramble"]


@torch.no_grad()
def exact_in_batches(net: SwitchableModel, source_at: Callable[[int], nn.Module], batch: int = 2) -> dict[int, bool]:
    """Compare every path with the source in eval mode, bit for bit, with γ, β, μ, σ² different in each set.

    The outputs are compared, and the sums of what every BatchNorm gave: a detector may find nothing in noise.

    Args:
        net: its BatchNorm tensors are overwritten.
        source_at: returns the ordinary model for a resolution in pixels, over the values that the network was made
            from; overwritten too.
        batch: images of each forward.
    """
    net.eval()
    return {resolution: _exact(net, source_at(resolution).eval(), resolution, batch) for resolution in net.resolutions}


def scramble(source: nn.Module, net: SwitchableModel, resolution: int) -> None:
    """Give every set of a network values of its own, and the source those of one resolution.

    The source is written by its own names, the network by those of its file: a path with a wrong set differs.
    """
    values = {r: scrambled(source, r) for r in net.resolutions}
    for r in net.resolutions:
        write(net, {_name_in_file(source, net, name, r): value for name, value in values[r].items()})
    write(source, values[resolution])


def _exact(net: SwitchableModel, source: nn.Module, resolution: int, batch: int) -> bool:
    scramble(source, net, resolution)
    path, arguments = net.at(resolution), example_arguments(source, resolution, batch)
    with fitted_inside(source, resolution), fitted_inside(path, resolution):
        wanted, got = run_trial(source, arguments), run_trial(path, arguments)
    sums = torch.tensor([value for _, value in wanted.sums])
    ran = wanted.failure is None and got.failure is None and bool(sums.isfinite().any())
    return ran and equal_outputs(wanted.output, got.output) and equal_outputs(wanted.sums, got.sums)


def _name_in_file(source: nn.Module, net: SwitchableModel, name: str, resolution: int) -> str:
    if resolution == net.native:
        return name
    bn = max((bn for bn in batchnorms(source) if not bn or name.startswith(f"{bn}.")), key=len)
    return f"{bn}.at.{resolution}.{name.removeprefix(bn).lstrip('.')}".lstrip(".")
