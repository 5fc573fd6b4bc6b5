"""The thresholds of a cascade, fitted to what every path predicts.

A stage keeps the images whose confidence reaches its threshold; the rest goes up, and the last stage keeps all.
All pairs and triples of paths are tried, each with all combinations of up to 64 thresholds per stage.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from rsconvert.errors import ConfigError, DataError

__all__ = ["Fitted", "answering_stage", "check_aim", "fit_thresholds"]

_LEVELS = 64


@dataclass(frozen=True)
class Fitted:
    """A cascade, with its figures on the images that it was fitted to.

    Attributes:
        stages: resolutions, from the smallest to the largest.
        thresholds: of each stage but the last.
        top1: in percent.
        multiply_adds: of one image, on average.
    """

    stages: tuple[int, ...]
    thresholds: tuple[float, ...]
    top1: float
    multiply_adds: float


def answering_stage(confidence: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Return which stage answers each image, (N,): the first whose confidence, a row of (S, N), is high enough."""
    limits = torch.tensor([*thresholds, -torch.inf], dtype=torch.float64)[:, None]
    sure = confidence.double() >= limits
    sure[-1] = True  # even NaN
    return sure.int().argmax(0)


def check_aim(top1: float | None, multiply_adds: float | None) -> None:
    """Raise a ConfigError unless what a cascade is to reach, as `fit_thresholds` takes it, makes sense."""
    if top1 is not None and multiply_adds is not None:
        raise ConfigError(f"accuracy is {top1} and multiply_adds {multiply_adds}; one of them can be the aim.")
    if top1 is not None and not 0 < top1 <= 100:
        raise ConfigError(f"accuracy is {top1}; percent above 0, up to 100, are accepted.")
    if multiply_adds is not None and not multiply_adds > 0:
        raise ConfigError(f"multiply_adds is {multiply_adds}; a number above 0 is accepted.")


def fit_thresholds(
    confidence: Tensor,
    right: Tensor,
    costs: Mapping[int, float],
    *,
    top1: float | None = None,
    multiply_adds: float | None = None,
) -> Fitted:
    """Return the cheapest cascade that is right often enough, or the best of those that are cheap enough.

    The best of thousands is in part lucky. So a standard error per threshold is taken off each accuracy: that of its
    difference to the best single path's, on the same images. If none is high enough then, the nearest one is taken.

    Args:
        confidence: how sure each path is of its prediction, (S, N), from the cheapest path to the most expensive.
        right: whether the prediction is right, (S, N), bool.
        costs: resolution → multiply-adds of its path, in the same order.
        top1: what to reach, in percent; that of the best single path, unless ``multiply_adds`` is given.
        multiply_adds: of one image, what not to exceed on average.
    Raises:
        ConfigError: nothing reaches the aim, it is unusable, or there are two.
        DataError: every path is equally sure of all images.
    """
    check_aim(top1, multiply_adds)
    singles = right.double().mean(1)
    best = int(singles.argmax())
    aim = float(singles[best]) if top1 is None else top1 / 100
    found: list[tuple[tuple[float, ...], Fitted]] = []
    sure = confidence.double().nan_to_num(nan=-1.0)
    for size in (2, 3):
        for rows in combinations(range(len(costs)), size):
            stages = tuple(list(costs)[row] for row in rows)
            every = _Choices(sure[list(rows)], right[list(rows)], right[best], [costs[r] for r in stages])
            if every.top1.numel():
                place, rank = every.chosen(aim, multiply_adds)
                found.append((rank, every.fitted(stages, place)))
    if not found:
        raise DataError("every path is equally sure of all images; a cascade needs images that differ.")
    _, taken = min(found, key=lambda one: one[0])
    _check_reached(taken, top1, multiply_adds, max(100 * float(singles[best]), *(one.top1 for _, one in found)))
    return taken


class _Choices:
    """Accuracy and cost of one cascade for all combinations of thresholds, an axis for each stage but the last."""

    def __init__(self, confidence: Tensor, right: Tensor, reference: Tensor, costs: Sequence[float]) -> None:
        count, stages = right.shape[1], range(len(costs))
        self.levels = [_levels(row) for row in confidence[:-1]]
        self.sizes = [len(levels) + 1 for levels in self.levels]
        self.place = torch.zeros(count, dtype=torch.int64)
        for row, levels, size in zip(confidence, self.levels, self.sizes, strict=False):
            self.place = self.place * size + torch.bucketize(row, levels, right=True)
        zero = torch.zeros(())
        self.multiply_adds = (
            sum((costs[i] * self._summed(torch.ones(count), i, stops=False) for i in stages), zero) / count
        )
        self.top1 = sum((self._summed(right[i], i) for i in stages), zero) / count
        differing = sum((self._summed(right[i] ^ reference, i) for i in stages), zero) / count
        gap = self.top1 - reference.double().mean()
        self.sure_top1 = self.top1 - len(self.levels) * ((differing - gap**2).clamp(min=0) / count).sqrt()

    def chosen(self, top1: float, multiply_adds: float | None) -> tuple[int, tuple[float, ...]]:
        """Return the place of the choice for an aim, and its rank among those of other cascades.

        It is the cheapest that surely has the accuracy, else the surest; for a budget of multiply-adds the surest
        within it, else the cheapest.
        """
        enough = self.sure_top1 >= top1 - 1e-9 if multiply_adds is None else self.multiply_adds <= multiply_adds
        missed = not enough.any()
        if missed == (multiply_adds is None):
            place = int(self.sure_top1.where(enough | missed, -torch.inf).argmax())
            return place, (missed, -float(self.sure_top1.flatten()[place]), float(self.multiply_adds.flatten()[place]))
        place = int(self.multiply_adds.where(enough | missed, torch.inf).argmin())
        return place, (missed, float(self.multiply_adds.flatten()[place]))

    def fitted(self, stages: tuple[int, ...], place: int) -> Fitted:
        """Return the choice at a place."""
        axes = torch.unravel_index(torch.tensor(place), self.top1.shape)
        limits = tuple(float(levels[i]) for levels, i in zip(self.levels, axes, strict=True))
        top1, cost = (float(table.flatten()[place]) for table in (self.top1, self.multiply_adds))
        return Fitted(stages, limits, 100 * top1, cost)

    def _summed(self, values: Tensor, stage: int, stops: bool = True) -> Tensor:
        """Return the sum of values over the images that reach a stage, and stop there, for all thresholds."""
        sums: Tensor = torch.bincount(self.place, values.double(), minlength=math.prod(self.sizes)).view(self.sizes)
        for axis, size in enumerate(self.sizes):
            if axis < stage:
                sums = sums.cumsum(axis).narrow(axis, 0, size - 1)
            elif axis == stage and stops:
                sums = (sums.sum(axis, keepdim=True) - sums.cumsum(axis)).narrow(axis, 0, size - 1)
            else:
                sums = sums.sum(axis, keepdim=True)
        return sums


def _levels(confidence: Tensor) -> Tensor:
    """Return thresholds halfway between neighbours, so that rounding at run time decides nothing; at most 64."""
    values: Tensor = torch.unique(confidence[confidence >= 0])
    between = (values[1:] + values[:-1]) / 2
    if len(between) <= _LEVELS:
        return between
    ranks = confidence.sort().values[torch.linspace(0, len(confidence) - 1, _LEVELS + 2).round().long()[1:-1]]
    chosen = torch.searchsorted(between, ranks).clamp(max=len(between) - 1)
    return between[torch.unique(chosen)]


def _check_reached(taken: Fitted, top1: float | None, multiply_adds: float | None, highest: float) -> None:
    if top1 is not None and taken.top1 < top1 - 1e-7:
        raise ConfigError(
            f"accuracy is {top1}; no cascade reaches it, the nearest has {taken.top1:.2f} and the best path or cascade "
            f"{highest:.2f} on the images of the fit. Lower it."
        )
    if multiply_adds is not None and taken.multiply_adds > multiply_adds:
        raise ConfigError(
            f"multiply_adds is {multiply_adds:.6g}; the cheapest cascade takes {taken.multiply_adds:.6g} on average. "
            "Raise it, or add a smaller resolution."
        )
