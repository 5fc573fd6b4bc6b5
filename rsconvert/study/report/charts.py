"""Line charts as geometry, for the template to draw: points in a box, ticks at round numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["HEIGHT", "WIDTH", "Chart", "Curve", "Mark", "Series", "draw"]

WIDTH, HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 34, 50
_TICKS = 5
_APART = 26  # in units of the box, so that two labels do not touch


@dataclass(frozen=True)
class Series:
    """A curve's data.

    Attributes:
        points: (x, y), from the left to the right.
        intervals: (low, high) of each y, or none.
        sizes: the size that each point belongs to, or none.
        hollow: whether each point is drawn hollow, or none.
    """

    name: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float]] = ()
    sizes: Sequence[str] = ()
    hollow: Sequence[bool] = ()


@dataclass(frozen=True)
class Mark:
    """A point of a curve in the box, with what it stands for."""

    x: float
    y: float
    value: float
    size: str | None
    hollow: bool


@dataclass(frozen=True)
class Curve:
    """A curve in the box: SVG paths of the line and of its interval, and the points."""

    name: str
    line: str
    band: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Chart:
    """Curves in a box of ``WIDTH`` × ``HEIGHT`` units, with ticks as (place, text)."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    curves: tuple[Curve, ...]
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = HEIGHT - _BOTTOM


def draw(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float] | None = None,
    whole: bool = False,
) -> Chart:
    """Lay out curves in one box.

    Args:
        x_ticks: where the x axis is labelled; None takes round numbers.
        whole: whether x counts something, so that no tick lies between whole numbers.
    """
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points] + [y for one in series for pair in one.intervals for y in pair]
    across = _Scale(_padded(min(xs), max(xs), 0.03), (_LEFT, WIDTH - _RIGHT))
    y_round = _round_numbers(min(ys), max(ys))
    up = _Scale(_padded(min(*ys, y_round[0]), max(*ys, y_round[-1]), 0), (HEIGHT - _BOTTOM, _TOP))
    asked = _round_numbers(min(xs), max(xs), 1 if whole else 0) if x_ticks is None else x_ticks
    return Chart(
        title,
        x_label,
        y_label,
        _spread([(across(x), f"{x:g}") for x in sorted(asked) if min(xs) <= x <= max(xs)]),
        tuple((up(y), f"{y:g}") for y in y_round),
        tuple(_curve(one, across, up) for one in series),
    )


class _Scale:
    """A linear map from values to places."""

    def __init__(self, values: tuple[float, float], places: tuple[float, float]) -> None:
        self._start, self._place = values[0], places[0]
        self._factor = (places[1] - places[0]) / (values[1] - values[0])

    def __call__(self, value: float) -> float:
        return round(self._place + (value - self._start) * self._factor, 1)


def _curve(one: Series, across: _Scale, up: _Scale) -> Curve:
    places = [(across(x), up(y)) for x, y in one.points]
    lows, highs = ([up(pair[i]) for pair in one.intervals] for i in (0, 1))
    edge = [(x, y) for (x, _), y in zip(places, highs, strict=False)]
    edge += [(x, y) for (x, _), y in zip(reversed(places), reversed(lows), strict=False)]
    sizes, hollow = one.sizes or (None,) * len(places), one.hollow or (False,) * len(places)
    marks = tuple(
        Mark(x, y, value, size, empty)
        for (x, y), (_, value), size, empty in zip(places, one.points, sizes, hollow, strict=True)
    )
    return Curve(one.name, _path(places), _path(edge) + "Z" if edge else "", marks)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in places)


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    """Return a range a little wider, and never empty."""
    margin = (high - low) * share or (0 if high > low else 0.5)
    return low - margin, high + margin


def _round_numbers(low: float, high: float, least: float = 0) -> list[float]:
    """Return about five round numbers from the one below ``low`` to the one above ``high``."""
    rough = (high - low) / _TICKS or 0.2
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(least, next(power * factor for factor in (1, 2, 2.5, 5, 10) if rough <= power * factor * 1.001))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _spread(ticks: Sequence[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """Leave out labels that would touch the one before."""
    kept: list[tuple[float, str]] = []
    for place, text in ticks:
        if not kept or place - kept[-1][0] >= _APART:
            kept.append((place, text))
    return tuple(kept)
