"""Figures of a comparison: accuracies, gains, importance scores; each as PNG and SVG."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsconvert.study.comparison.results import Comparison, deviation
from rsconvert.study.paper import new_figure, paper_style, save_figure, series_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_accuracies", "plot_gains", "plot_scores"]

_HATCHES = ("", "///", "...", "\\\\\\", "xxx")
_PER_ROW = 3

_Values = Mapping[int, Sequence[float]]


@paper_style
def plot_accuracies(found: Comparison, path: Path) -> None:
    """Draw each line's mean top-1 in percent over resolution, with its deviation; hollow marks are untrained.

    Variants have panels of their own.
    """
    titles = list(dict.fromkeys(line.title for line in found.lines))
    with _panels(path, _variants(found), 4.6, 3.6) as panels:
        for line in found.lines:
            values = {r: list(by_seed.values()) for r, by_seed in line.top1.items() if by_seed}
            _plot_line(panels[line.variant], titles.index(line.title), line.title, values, line.trained)
        for axes in panels.values():
            axes.set(xlabel="resolution (pixels); hollow: not trained", ylabel="top-1 (%)", xticks=found.resolutions)


@paper_style
def plot_gains(found: Comparison, path: Path) -> None:
    """Draw the gains against the I-Nets in points, as bars with deviations, where a method trained the resolution."""
    several = [line for line in found.lines if len(line.trained) > 1 and found.gains(line)]
    titles = list(dict.fromkeys(line.title for line in several))
    sides = sorted({r for line in several for r in found.gains(line) if r in line.trained}, reverse=True)
    with _panels(path, _variants(found), 4.6, 3.0) as panels:
        for line in several:
            i, width = titles.index(line.title), 0.8 / len(titles)
            gains = {r: list(by_seed.values()) for r, by_seed in found.gains(line).items() if r in line.trained}
            places = {sides.index(r) + (i - (len(titles) - 1) / 2) * width: v for r, v in gains.items()}
            _plot_bars(panels[line.variant], i, line.title, places, width)
        for axes in panels.values():
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set(xlabel="resolution (pixels)", ylabel="top-1 against the I-Nets (points)")
            axes.set_xticks(range(len(sides)), [str(r) for r in sides])


@paper_style
def plot_scores(found: Comparison, path: Path) -> None:
    """Draw the importance scores, softmax(alpha), after each epoch: a panel per method, the mean over the seeds."""
    from matplotlib.ticker import MaxNLocator

    scores = {m.label: [run.scores for run in found.runs if run.method == m.name] for m in found.learning}
    with _panels(path, {label: label for label in scores}, 2.4, 2.4) as panels:
        for label, runs in scores.items():
            epochs = list(range(1, len(runs[0]) + 1))
            for i, r in enumerate(found.trained):
                # A method of fewer resolutions keeps the others' places, for the legend is common to all.
                means = [statistics.fmean(rows[epoch - 1].get(r, math.nan) for rows in runs) for epoch in epochs]
                panels[label].plot(epochs, means, **series_style(i), label=str(r))
            panels[label].set(xlabel="epoch", ylabel="importance score")
            panels[label].xaxis.set_major_locator(MaxNLocator(integer=True))
        next(iter(panels.values())).set_ylim(bottom=0)  # of all, when all are drawn


def _variants(found: Comparison) -> dict[str, str]:
    """Return the title of the panel of each variant; a single one needs none."""
    variants = list(dict.fromkeys(line.variant for line in found.lines))
    if len(variants) == 1:
        return {variants[0]: ""}
    low, high = found.settings["crop_area"]
    return {variant: variant or f"crops {low:g}-{high:g}" for variant in variants}


def _plot_line(axes: "Axes", i: int, title: str, values: _Values, trained: Sequence[int]) -> None:
    style, sides = series_style(i), sorted(values)
    means = [statistics.fmean(values[r]) for r in sides]
    spread = [deviation(values[r]) or 0.0 for r in sides]
    axes.errorbar(sides, means, spread if any(spread) else None, fmt="none", ecolor=style["color"], capsize=2)
    axes.plot(sides, means, **style, label=title, zorder=3)
    hollow = [(r, mean) for r, mean in zip(sides, means, strict=True) if r not in trained]
    if hollow:
        axes.plot(*zip(*hollow, strict=True), **style | {"linestyle": ""}, markerfacecolor="white", zorder=4)


def _plot_bars(axes: "Axes", i: int, title: str, values: Mapping[float, Sequence[float]], width: float) -> None:
    means = [statistics.fmean(v) for v in values.values()]
    spread = [deviation(v) or 0.0 for v in values.values()]
    bars: dict[str, Any] = {
        "color": series_style(i)["color"],
        "hatch": _HATCHES[i % 5],
        "edgecolor": "white",
        "label": title,
    }
    axes.bar(list(values), means, width, yerr=spread if any(spread) else None, capsize=2, **bars)


@contextmanager
def _panels(path: Path, titles: Mapping[str, str], width: float, height: float) -> Iterator[dict[str, "Axes"]]:
    """Yield empty axes under the keys of their titles, and write them with grid and legend.

    Args:
        width: of one in inches, as height; the legend is as high as it needs.
    """
    columns, rows = min(len(titles), _PER_ROW), math.ceil(len(titles) / _PER_ROW)
    figure = new_figure(width, height)
    places = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    panels = dict(zip(titles, places, strict=False))
    yield panels
    for i, (key, axes) in enumerate(panels.items()):
        axes.set_title(titles[key])
        if i % columns:
            axes.set_ylabel("")  # the first one of the row tells it
    for unused in places[len(titles) :]:
        unused.remove()
    handles, labels = places[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    figure.set_size_inches(width * columns + 1.4, max(height * rows, 0.22 * len(labels) + 0.4))
    for ending in ("png", "svg"):
        save_figure(figure, path.with_suffix(f".{ending}"))
