"""Resolutions: a list of them as it is meant, one that is run in order, and the one that images have."""

import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from rsconvert.errors import ConfigError, ResolutionError

__all__ = ["check_resolutions", "check_stages", "side_of", "with_middles"]


def check_resolutions(resolutions: Sequence[int], name: str = "resolutions", needs: str = "BN set") -> tuple[int, ...]:
    """Return the resolutions in pixels from the largest to the smallest.

    Args:
        name, needs: what the list is called, and what each of it needs, for the errors.

    Raises:
        ResolutionError: it is no list, is empty, or holds a repeat or something that is not a positive whole number.
    """
    if not isinstance(resolutions, Iterable):
        raise ResolutionError(
            f"{name} is {resolutions!r}; a list of numbers of pixels is needed. Write [{resolutions}]."
        )
    given = list(resolutions)
    text = ",".join(map(str, given))
    if not given:
        raise ResolutionError(
            f"{name} is empty; at least one number of pixels is needed. Name some, such as 224,160,96."
        )
    for r in given:
        if not _is_positive(r):
            raise ResolutionError(
                f"{name} has {r!r}: {text}; positive whole numbers of pixels are needed. Mend the list."
            )
        if given.count(r) > 1:
            raise ResolutionError(
                f"{name} has {r} twice: {text}; each resolution needs one {needs}. Remove the repeat."
            )
    return tuple(sorted(map(operator.index, given), reverse=True))


def with_middles(resolutions: Sequence[int]) -> tuple[int, ...]:
    """Return the resolutions and the middle of each two neighbours, from the largest to the smallest.

    >>> with_middles((224, 192, 160))
    (224, 208, 192, 176, 160)

    Raises:
        ResolutionError: as `check_resolutions`.
    """
    order = check_resolutions(resolutions)
    middles = {(upper + lower) // 2 for upper, lower in itertools.pairwise(order)}
    return check_resolutions([*middles.union(order)])


def check_stages(stages: Sequence[int], thresholds: Sequence[float]) -> tuple[int, ...]:
    """Return the resolutions of a cascade in pixels, from the smallest to the largest.

    Raises:
        ResolutionError: there are fewer than two, or they do not increase.
        ConfigError: there is not a threshold in [0, 1] for each but the last.
    """
    order = check_resolutions(stages)[::-1] if stages else ()
    if len(order) < 2 or list(order) != list(stages):
        raise ResolutionError(
            f"the stages of the cascade are {','.join(map(str, stages))}; at least two resolutions are needed, from "
            "the smallest to the largest. Order them."
        )
    given = list(thresholds)
    if len(given) != len(order) - 1 or not all(_is_share(number) for number in given):
        raise ConfigError(
            f"the thresholds of the cascade are {given}; {len(order) - 1} numbers from 0 to 1 are needed, one for each "
            "stage but the last. Correct them."
        )
    return order


def _is_share(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= 1


def _is_positive(number: Any) -> bool:
    """Tell whether it is a whole number above 0, be it Python's or NumPy's."""
    try:
        return not isinstance(number, bool) and operator.index(number) > 0
    except TypeError:
        return False


def side_of(image: Tensor) -> int:
    """Return round(√(H·W)) of images (…, H, W)."""
    height, width = image.shape[-2:]
    return int(height) if height == width else round(math.sqrt(height * width))
