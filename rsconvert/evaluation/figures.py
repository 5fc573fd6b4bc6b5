"""Figures: accuracy against resolution and against multiply-adds."""

from collections.abc import Mapping
from pathlib import Path

from rsconvert.evaluation.results import Evaluation

__all__ = ["plot_accuracy"]

# Colours that stay apart for colour-blind readers, with markers that stay apart in print.
_STYLES = (("#0072b2", "o", "-"), ("#d55e00", "s", "--"), ("#009e73", "^", ":"), ("#cc79a7", "D", "-."))


def plot_accuracy(curves: Mapping[str, Evaluation], path: str | Path) -> None:
    """Draw top-1 in percent of named networks over resolution (left) and over multiply-adds (right).

    Hollow marks are interpolated paths.

    The ending of ``path`` chooses the format, as PNG or SVG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for (name, result), (colour, marker, line) in zip(curves.items(), _STYLES, strict=False):
        rows = sorted(result.resolutions.items())
        top1 = [row.top1 for _, row in rows]
        for axes, xs in ((left, [r for r, _ in rows]), (right, [(row.multiply_adds or 0) / 1e6 for _, row in rows])):
            axes.plot(xs, top1, line, color=colour, label=name)
            for x, y, (_, row) in zip(xs, top1, rows, strict=True):
                axes.plot(x, y, marker, color=colour, markerfacecolor="white" if row.interpolated else colour)
    left.set(xlabel="resolution (pixels); hollow: not trained", ylabel="top-1 (%)")
    right.set(xlabel="multiply-adds (millions)")
    left.legend(frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
