"""Charts as geometry for the page's templates: places in a box, ticks at round numbers."""

from collections.abc import Iterable, Sequence

from matplotlib.ticker import MaxNLocator

from rsconvert.study.curves import Chart, Curve

__all__ = ["Drawing"]

_WIDTH, _HEIGHT = 480, 300
_APART = 26  # in units of the box, so that two labels do not touch


class Drawing:
    """A chart in a box of 480 × 300 units.

    Attributes:
        x_ticks: the places and texts of the labels below the x axis, as ``y_ticks`` left of the y axis.
    """

    left, right, top, bottom = 46, _WIDTH - 18, 34, _HEIGHT - 50

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        points = [point for curve in chart.curves for point in curve.points]
        xs = [point.x for point in points]
        ys = [y for point in points for y in (point.y, *(point.interval or ()))]
        y_ticks = _round_numbers(ys)
        self._x_range = _padded(min(xs), max(xs), 0.03)
        self._y_range = _padded(min(*ys, *y_ticks), max(*ys, *y_ticks), 0)
        asked = chart.x_ticks or _round_numbers(xs, whole=chart.x_label == "epoch")
        self.x_ticks = _spread([(self.across(x), f"{x:g}") for x in asked if min(xs) <= x <= max(xs)])
        self.y_ticks = [(self.up(y), f"{y:g}") for y in y_ticks]

    def across(self, x: float) -> float:
        """Return the place of an x."""
        low, high = self._x_range
        return round(self.left + (self.right - self.left) * (x - low) / (high - low), 1)

    def up(self, y: float) -> float:
        """Return the place of a y."""
        low, high = self._y_range
        return round(self.bottom - (self.bottom - self.top) * (y - low) / (high - low), 1)

    def line(self, curve: Curve) -> str:
        """Return the SVG path of a curve."""
        return _path((self.across(point.x), self.up(point.y)) for point in curve.points)

    def interval(self, curve: Curve) -> str:
        """Return the SVG path of a curve's intervals: a band, or a bar for each; empty if there is none."""
        spans = [(self.across(p.x), *map(self.up, p.interval)) for p in curve.points if p.interval]
        if not curve.band:
            return "".join(f"M{x:g} {low:g}V{high:g}" for x, low, high in spans)
        lows, highs = [(x, low) for x, low, _ in spans], [(x, high) for x, _, high in spans]
        return _path([*highs, *reversed(lows)]) + "Z" if spans else ""


def _path(places: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in places)


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    """Return a range a little wider, and never empty."""
    margin = (high - low) * share or (0 if high > low else 0.5)
    return low - margin, high + margin


def _round_numbers(values: Sequence[float], whole: bool = False) -> list[float]:
    """Return about five round numbers that enclose the values; a value alone is returned as it is."""
    low, high = min(values), max(values)
    locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole)
    return [float(tick) for tick in locator.tick_values(low, high)] if high > low else [low]


def _spread(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Leave out labels that would touch the one before."""
    kept: list[tuple[float, str]] = []
    for place, text in ticks:
        if not kept or place - kept[-1][0] >= _APART:
            kept.append((place, text))
    return kept
