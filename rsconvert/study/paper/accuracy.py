"""Accuracy against multiply-adds and against the resolution (RS-Nets, Fig. 1 and Fig. 4)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rsconvert.evaluation import Accuracy, Evaluation, resolution_of
from rsconvert.study.paper.style import PAGE, new_figure, paper_style, series_style

__all__ = ["dense_resolutions", "plot_accuracy"]

_Row = tuple[int, Accuracy]


def dense_resolutions(trained: Sequence[int], step: int = 16) -> tuple[int, ...]:
    """Return the trained resolutions and those between them, from the largest to the smallest.

    >>> dense_resolutions((224, 192, 160), 24)
    (224, 208, 192, 184, 160)
    """
    return tuple(sorted({*trained, *range(min(trained), max(trained), step)}, reverse=True))


@paper_style
def plot_accuracy(curves: Mapping[str, Evaluation]) -> Figure:
    """Draw top-1 in percent of named networks over the resolution (left) and over multiply-adds (right).

    Filled marks are trained resolutions, hollow ones are not. The first network has its 95 % interval as a band, the
    others as bars at the resolutions that they were trained for. Several networks trained for one resolution each
    are a set of I-Nets: over multiply-adds they are one curve, through the own point of each.
    """
    figure = new_figure(PAGE, 3.0)
    left, right = figure.subplots(1, 2)
    rows = {name: _ordered(one) for name, one in curves.items()}
    own = {name: [(r, row) for r, row in found if not row.interpolated] for name, found in rows.items()}
    single = [name for name in list(curves)[1:] if len(own[name]) == 1]
    for index, (name, found) in enumerate(rows.items()):
        _draw_curve(left, [r for r, _ in found], found, name, index)
        if len(single) < 2 or name not in single:
            _draw_curve(right, _costs(found), found, name, index)
    if len(single) >= 2:
        points = sorted((own[name][0] for name in single), key=lambda point: point[0])
        _draw_curve(right, _costs(points), points, "I-Nets, each at its own resolution", len(rows))
    left.set(xlabel="resolution (pixels); hollow: not trained", ylabel="top-1 (%)")
    right.set(xlabel="multiply-adds (millions)", ylabel="top-1 (%)")
    handles = {label: handle for axes in (left, right) for handle, label in _legend(axes)}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=min(4, len(handles)))
    return figure


def _legend(axes: Axes) -> Iterable[tuple[Any, str]]:
    return zip(*axes.get_legend_handles_labels(), strict=True)


def _ordered(one: Evaluation) -> list[_Row]:
    return sorted(((resolution_of(size), row) for size, row in one.resolutions.items()), key=lambda pair: pair[0])


def _costs(rows: Sequence[_Row]) -> list[float]:
    return [(row.multiply_adds or 0) / 1e6 for _, row in rows]


def _draw_curve(axes: Axes, xs: Sequence[float], rows: Sequence[_Row], name: str, index: int) -> None:
    style = series_style(index)
    line, marker, colour = style["linestyle"], style["marker"], style["color"]
    top1 = [row.top1 for _, row in rows]
    axes.plot(xs, top1, linestyle=line, color=colour, marker=marker, markevery=[], label=name, zorder=3 - index / 10)
    for x, (_, row) in zip(xs, rows, strict=True):
        hollow: dict[str, Any] = {"markerfacecolor": "white", "markersize": 2.5} if row.interpolated else {}
        axes.plot(x, row.top1, marker, color=colour, zorder=4 - index / 10, **hollow)
        if index and row.top1_interval is not None and not row.interpolated:
            axes.plot([x, x], row.top1_interval, "-", color=colour, linewidth=0.8, zorder=2)
    intervals = [row.top1_interval for _, row in rows]
    if not index and all(intervals):
        low, high = zip(*(interval for interval in intervals if interval), strict=True)
        axes.fill_between(xs, low, high, color=colour, alpha=0.18, linewidth=0)
