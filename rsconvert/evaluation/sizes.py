"""Sizes of inputs, a resolution or the height and width of one that is not square, and what a path costs at one."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rsconvert.data import Size
from rsconvert.errors import ResolutionError, first_line
from rsconvert.models import as_call, example_arguments
from rsconvert.surgery import SwitchableModel, check_resolutions, copy_structure, with_middles

__all__ = ["check_sizes", "default_resolutions", "multiply_adds", "size_name"]


def check_sizes(sizes: Iterable[Any]) -> tuple[Size, ...]:
    """Return sizes in their order, each once: whole numbers, or pairs (height, width).

    Raises:
        ResolutionError: there is none, or one is not positive and whole.
    """
    given = tuple(sizes) or check_resolutions([])  # which says that there is none
    return tuple(dict.fromkeys(_checked(size) for size in given))


def _checked(size: Any) -> Size:
    if not isinstance(size, tuple):
        return check_resolutions([size])[0]
    if len(size) != 2:
        raise ResolutionError(f"size is {size}; a height and a width are needed. Write two numbers.")
    height, width = (check_resolutions([side])[0] for side in size)
    return height if height == width else (height, width)


def size_name(size: Size) -> str:
    """Return ``160``, or ``128x192`` for height 128 and width 192."""
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


@torch.no_grad()
def multiply_adds(model: nn.Module, resolution: Size) -> int:
    """Return the multiply-adds of one image: half the operations that torch's counter finds.

    Counted are convolutions, matrix products and attention. Normalisation, activation, pooling and additions are not:
    papers that count them come out higher, by about a hundredth.

    Args:
        model: a plain model, such as ``net.at(160)``; it is left as it is.
        resolution: side of the square input in pixels, or its height and width.
    Raises:
        ResolutionError: the model does not run at the resolution.
    """
    counted: nn.Module = getattr(model, "computes_as", model)  # of what another software runs
    plain = copy_structure(counted).eval()
    args, kwargs = as_call(example_arguments(plain, resolution))
    try:
        with FlopCounterMode(display=False) as counter:
            plain(*args, **kwargs)
    except Exception as error:  # whatever the model's own code raises
        raise ResolutionError(
            f"resolution {resolution} does not work in {type(model).__name__} "
            f"({first_line(error) or type(error).__name__}). "
            "Choose another resolution, as a rule a larger one or a multiple of 32."
        ) from error
    return int(counter.get_total_flops()) // 2


def default_resolutions(net: SwitchableModel) -> tuple[int, ...]:
    """Return the trained resolutions and, where the network works there, those midway between."""
    return tuple(r for r in with_middles(net.resolutions) if r in net.resolutions or _works(net, r))


def _works(net: SwitchableModel, resolution: int) -> bool:
    try:
        multiply_adds(net.at(resolution), resolution)
    except ResolutionError:
        return False
    return True
