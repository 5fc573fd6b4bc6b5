"""Sizes of inputs: a resolution, or the height and width of one that is not square."""

import math
from collections.abc import Iterable
from typing import Any

from rsconvert.data import Size
from rsconvert.errors import ResolutionError
from rsconvert.evaluation.cost import multiply_adds
from rsconvert.surgery import SwitchableModel, check_resolutions, with_middles

__all__ = ["check_sizes", "default_resolutions", "resolution_of", "size_name"]


def check_sizes(sizes: Iterable[Any]) -> tuple[Size, ...]:
    """Return sizes in their order, each once: whole numbers, or pairs (height, width).

    Raises:
        ResolutionError: there is none, or one is not positive and whole.
    """
    given = tuple(sizes)
    if not given:
        check_resolutions([])  # which says so
    return tuple(dict.fromkeys(_checked(size) for size in given))


def default_resolutions(net: SwitchableModel) -> tuple[int, ...]:
    """Return the trained resolutions and, where the network works there, those midway between."""
    return tuple(r for r in with_middles(net.resolutions) if r in net.resolutions or _works(net, r))


def _works(net: SwitchableModel, resolution: int) -> bool:
    try:
        multiply_adds(net.at(resolution), resolution)
    except ResolutionError:
        return False
    return True


def resolution_of(size: Size) -> int:
    """Return the resolution whose path runs a size: round(√(H·W))."""
    return size if isinstance(size, int) else round(math.sqrt(size[0] * size[1]))


def size_name(size: Size) -> str:
    """Return ``160``, or ``128x192`` for height 128 and width 192."""
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def _checked(size: Any) -> Size:
    if not isinstance(size, tuple):
        return check_resolutions([size])[0]
    if len(size) != 2:
        raise ResolutionError(f"size is {size}; a height and a width are needed. Write two numbers.")
    height, width = (check_resolutions([side])[0] for side in size)
    return height if height == width else (height, width)
