"""Figures of a comparison: accuracies, gains, importance scores; each as PNG and SVG."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsconvert.comparison.table import Comparison, deviation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_accuracies", "plot_gains", "plot_scores"]

# Colours that stay apart for colour-blind readers (Okabe & Ito), with markers, lines and hatches that do in print.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
_MARKERS, _DASHES, _HATCHES = "osD^vPX*", ("-", "--", "-.", ":"), ("", "///", "...", "\\\\\\", "xxx")
_PER_ROW = 3

_Values = Mapping[int, Sequence[float]]


def plot_accuracies(found: Comparison, path: Path) -> None:
    """Draw each line's mean top-1 in percent over resolution, with its deviation; hollow marks are untrained."""
    with _panels(path, 1, 7.5, 4.8) as (axes,):
        for i, line in enumerate(found.lines):
            values = {r: list(by_seed.values()) for r, by_seed in line.top1.items() if by_seed}
            _plot_line(axes, i, line.title, values, line.trained)
        axes.set(xlabel="resolution (pixels); hollow: not trained", ylabel="top-1 (%)", xticks=found.resolutions)


def plot_gains(found: Comparison, path: Path) -> None:
    """Draw the gains against the I-Nets in points, as bars with deviations, where a method trained the resolution."""
    bars: dict[str, _Values] = {}
    for line in found.lines:
        gains = {r: list(by_seed.values()) for r, by_seed in found.gains(line).items() if r in line.trained}
        if gains and len(line.trained) > 1:
            bars[line.title] = gains
    sides = sorted({r for values in bars.values() for r in values}, reverse=True)
    with _panels(path, 1, 7.5, 4.2) as (axes,):
        for i, (title, values) in enumerate(bars.items()):
            shift = (i - (len(bars) - 1) / 2) * 0.8 / len(bars)
            _plot_bars(axes, i, title, {sides.index(r) + shift: v for r, v in values.items()}, 0.8 / len(bars))
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(xlabel="resolution (pixels)", ylabel="top-1 against the I-Nets (points)")
        axes.set_xticks(range(len(sides)), [str(r) for r in sides])


def plot_scores(found: Comparison, path: Path) -> None:
    """Draw the importance scores, softmax(alpha), after each epoch: a panel per method, the mean over the seeds."""
    from matplotlib.ticker import MaxNLocator

    scores = {m.title: [run.scores for run in found.runs if run.method == m.name] for m in found.learning}
    with _panels(path, len(scores), 3.2, 3.0) as panels:
        for axes, (title, runs) in zip(panels, scores.items(), strict=True):
            epochs = list(range(1, len(runs[0]) + 1))
            for i, r in enumerate(found.trained):
                # A method of fewer resolutions keeps the others' places, for the legend is common to all.
                means = [statistics.fmean(rows[epoch - 1].get(r, math.nan) for rows in runs) for epoch in epochs]
                axes.plot(epochs, means, _style(i), color=_COLOURS[i % 8], label=str(r))
            axes.set(xlabel="epoch", ylabel="importance score", title=title)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylim(bottom=0)


def _style(i: int) -> str:
    return _MARKERS[i % 8] + _DASHES[(i + i // 8) % 4]


def _plot_line(axes: "Axes", i: int, title: str, values: _Values, trained: Sequence[int]) -> None:
    colour, sides = _COLOURS[i % 8], sorted(values)
    means = [statistics.fmean(values[r]) for r in sides]
    spread = [deviation(values[r]) or 0.0 for r in sides]
    axes.errorbar(sides, means, spread if any(spread) else None, fmt="none", ecolor=colour, capsize=2)
    axes.plot(sides, means, _style(i), color=colour, label=title, zorder=3)
    hollow = [(r, mean) for r, mean in zip(sides, means, strict=True) if r not in trained]
    if hollow:
        axes.plot(*zip(*hollow, strict=True), _MARKERS[i % 8], color=colour, markerfacecolor="white", zorder=4)


def _plot_bars(axes: "Axes", i: int, title: str, values: Mapping[float, Sequence[float]], width: float) -> None:
    means = [statistics.fmean(v) for v in values.values()]
    spread = [deviation(v) or 0.0 for v in values.values()]
    bars: dict[str, Any] = {"color": _COLOURS[i % 8], "hatch": _HATCHES[i % 5], "edgecolor": "white", "label": title}
    axes.bar(list(values), means, width, yerr=spread if any(spread) else None, capsize=2, **bars)


@contextmanager
def _panels(path: Path, count: int, width: float, height: float) -> Iterator[list["Axes"]]:
    """Yield empty axes, and write them with grid and legend; width and height are those of one, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns, rows = min(count, _PER_ROW), math.ceil(count / _PER_ROW)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for unused in panels[count:]:
        unused.remove()
    del panels[count:]
    yield panels
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    for ending in ("png", "svg"):
        figure.savefig(path.with_suffix(f".{ending}"), dpi=150)
