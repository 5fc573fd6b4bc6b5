"""The curves of accuracy over resolution and multiply-adds, as every figure shows them (RS-Nets, Fig. 1 and Fig. 4)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rsconvert.data import Size, resolution_of
from rsconvert.evaluation import Accuracy, Evaluation, MaskAccuracy, size_name
from rsconvert.models import Metric, Task
from rsconvert.study.figures import PAGE, legend_above, new_figure, paper_style, series_places, series_style

__all__ = [
    "Chart",
    "Curve",
    "Point",
    "accuracy_charts",
    "dense_resolutions",
    "draw_chart",
    "over_cost",
    "over_resolution",
    "plot_accuracy",
]

_TOP1 = Task().metric


@dataclass(frozen=True)
class Point:
    """A value of a curve.

    Attributes:
        interval: the lowest and highest y that it may stand for.
        size: the name of the size in pixels that it belongs to.
        hollow: whether the curve's network was not trained at that size.
    """

    x: float
    y: float
    interval: tuple[float, float] | None = None
    size: str | None = None
    hollow: bool = False


@dataclass(frozen=True)
class Curve:
    """Points from the smallest x to the largest; the intervals are a band or a bar at each point.

    ``style`` is the place among the styles of `series_style`.
    """

    name: str
    points: tuple[Point, ...]
    style: int = 0
    band: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves over labelled axes; without ``x_ticks`` the x axis has round numbers."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[float, ...] = ()


def dense_resolutions(trained: Sequence[int], step: int = 16) -> tuple[int, ...]:
    """Return the trained resolutions and those between them, from the largest to the smallest.

    >>> dense_resolutions((224, 192, 160), 24)
    (224, 208, 192, 184, 160)
    """
    return tuple(sorted({*trained, *range(min(trained), max(trained), step)}, reverse=True))


def over_resolution(curves: Sequence[Curve], metric: Metric = _TOP1) -> Chart:
    """Return the chart of curves of a score in percent whose x is the resolution in pixels."""
    trained = {point.x for curve in curves for point in curve.points if not point.hollow}
    label = "resolution (pixels); hollow: not trained"
    return Chart("Accuracy over resolution", label, f"{metric.title} (%)", tuple(curves), tuple(sorted(trained)))


def over_cost(curves: Sequence[Curve], metric: Metric = _TOP1) -> Chart:
    """Return the chart of curves of a score in percent whose x are millions of multiply-adds."""
    return Chart("Accuracy over cost", "multiply-adds (millions)", f"{metric.title} (%)", tuple(curves))


def accuracy_charts(networks: Mapping[str, Evaluation]) -> tuple[Chart, Chart]:
    """Return the charts of top-1, or mIoU, in percent of named networks over resolution and over multiply-adds.

    The first network has its 95 % interval as a band, the others as bars. Several other networks trained for one
    resolution each are a set of I-Nets: over multiply-adds they are one curve, through the own point of each.
    """
    sides = _curves(networks, lambda size, _: resolution_of(size))
    costs = _curves(networks, lambda _, row: (row.multiply_adds or 0) / 1e6)
    own = {curve.name: [point for point in curve.points if not point.hollow] for curve in costs[1:]}
    single = [points[0] for points in own.values() if len(points) == 1]
    if len(single) > 1:
        costs = [curve for curve in costs if len(own.get(curve.name, ())) != 1]
        points = tuple(sorted(single, key=lambda point: point.x))
        costs.append(Curve("I-Nets, each at its own resolution", points, _places(networks)["I-Nets"]))
    metric = next(iter(networks.values())).kind.metric
    return over_resolution(sides, metric), over_cost(costs, metric)


def draw_chart(axes: Axes, chart: Chart) -> None:
    """Draw the curves, their intervals and the labels of the axes; the first curve lies on top."""
    for curve in chart.curves:
        _draw_curve(axes, curve)
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    if chart.x_ticks:
        axes.set_xticks(chart.x_ticks)


@paper_style
def plot_accuracy(networks: Mapping[str, Evaluation]) -> Figure:
    """Draw the `accuracy_charts` of named networks next to each other."""
    figure = new_figure(PAGE, 3.0)
    for axes, chart in zip(figure.subplots(1, 2), accuracy_charts(networks), strict=True):
        draw_chart(axes, chart)
    legend_above(figure, figure.axes, 4)
    return figure


def _curves(networks: Mapping[str, Evaluation], x: Callable[[Size, Accuracy | MaskAccuracy], float]) -> list[Curve]:
    own, places, curves = next(iter(networks)), _places(networks), []
    for name, found in networks.items():
        points = [
            Point(x(size, row), row.score, row.interval, size_name(size), row.interpolated)
            for size, row in found.resolutions.items()
        ]
        curves.append(Curve(name, tuple(sorted(points, key=lambda point: point.x)), places[name], band=name == own))
    return curves


def _places(networks: Iterable[str]) -> dict[str, int]:
    """Return the place of each network among the styles, and that of a curve of I-Nets."""
    names = list(networks)
    return series_places(["I-Nets", *names], names[0])


def _draw_curve(axes: Axes, curve: Curve) -> None:
    style, points = series_style(curve.style), curve.points
    xs, ys, above = [point.x for point in points], [point.y for point in points], 4 - curve.style / 10
    filled = [i for i, point in enumerate(points) if not point.hollow]
    axes.plot(xs, ys, **style, label=curve.name, markevery=filled, zorder=above)
    hollow = [(point.x, point.y) for point in points if point.hollow]
    if hollow:
        style["linestyle"] = ""
        axes.plot(*zip(*hollow, strict=True), **style, markerfacecolor="white", markersize=3, zorder=above)
    spans = [(point.x, *point.interval) for point in points if point.interval]
    at, lows, highs = ([span[i] for span in spans] for i in range(3))
    if curve.band:
        axes.fill_between(at, lows, highs, color=style["color"], alpha=0.18, linewidth=0)
    else:
        axes.vlines(at, lows, highs, color=style["color"], linewidth=0.8, zorder=2)
