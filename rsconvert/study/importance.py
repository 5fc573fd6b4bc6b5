"""The importance scores of the resolutions over training: softmax(alpha) (RS-Nets, Appendix A)."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.study.figures import COLUMN, new_figure, paper_style, step_style
from rsconvert.text import Table
from rsconvert.training import read_summary

__all__ = ["Importance", "draw_scores", "importance", "mean_scores", "plot_importance", "read_scores"]

_EQUAL = 0.005  # what a table with two decimals does not show
_Scores = dict[int, dict[int, float]]


@dataclass(frozen=True)
class Importance:
    """Scores after each epoch, over one or several runs of the same resolutions.

    Attributes:
        runs: how many.
        mean: epoch → resolution → the mean score over the runs; the scores of an epoch sum to 1.
        deviation: the standard deviation over the runs (n - 1); None for one run.
    """

    runs: int
    mean: _Scores
    deviation: _Scores | None

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Those of the runs, in pixels."""
        return tuple(self.last)

    @property
    def last(self) -> dict[int, float]:
        """The mean scores after the last epoch."""
        return self.mean[max(self.mean)]

    @property
    def falling(self) -> bool:
        """Whether at the end each resolution has a lower score than the next larger one, beyond noise.

        Beyond half of a hundredth, and over several runs beyond the deviation of either.
        """
        noise = {r: max(_EQUAL, spread) for r, spread in (self._deviations or dict.fromkeys(self.last, 0.0)).items()}
        gaps = [(self.last[r] - self.last[s], max(noise[r], noise[s])) for r, s in pairwise(self.last)]
        return bool(gaps) and all(gap > least for gap, least in gaps)

    @property
    def equal(self) -> bool:
        """Whether at the end all scores are equal to half of a hundredth."""
        return max(self.last.values()) - min(self.last.values()) <= _EQUAL

    @property
    def _deviations(self) -> dict[int, float] | None:
        return None if self.deviation is None else self.deviation[max(self.deviation)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with epochs and resolutions as strings."""
        mean, deviation = (
            None if scores is None else {str(e): {str(r): x for r, x in row.items()} for e, row in scores.items()}
            for scores in (self.mean, self.deviation)
        )
        trend = {"falling": self.falling, "equal": self.equal}
        return {"runs": self.runs, **trend, "mean": mean, "deviation": deviation}

    def table(self) -> Table:
        """Return a row per epoch."""
        spreads = self.deviation or {}
        titles = ["epoch", *map(str, self.resolutions), *(f"± {r}" for r in spreads.get(1, ()))]
        rows = [[epoch, *row.values(), *spreads.get(epoch, {}).values()] for epoch, row in self.mean.items()]
        trend = "fall with the resolution" if self.falling else "do not fall with the resolution beyond noise"
        trend = "are equal" if self.equal else trend
        return Table(titles, rows, f"Runs: {self.runs}. At the end the scores {trend}.")


def importance(runs: Sequence[str | Path]) -> Importance:
    """Read the scores that finetuning runs recorded; of runs of different length, the epochs that all have.

    Args:
        runs: their folders.
    Raises:
        CheckpointError: a folder holds no summary of a run with scores.
        ConfigError: the runs have other resolutions, or one is given twice.
    """
    if twice := [run for run, count in Counter(Path(run).resolve() for run in runs).items() if count > 1]:
        raise ConfigError(f"{twice[0]} is given twice; a mean takes each run once. Remove the repeat.")
    read = [read_scores(run) for run in runs]
    sides = [tuple(rows[0]) for rows in read]
    if other := next((i for i, own in enumerate(sides) if own != sides[0]), 0):
        raise ConfigError(
            f"{runs[other]} has the resolutions {sides[other]}, {runs[0]} {sides[0]}; a mean needs equal ones."
        )
    return mean_scores(read)


def read_scores(run: str | Path) -> list[dict[int, float]]:
    """Return the score of each resolution after each epoch of a finetuning run.

    Raises:
        CheckpointError: the folder holds no summary of a run with scores.
    """
    rows = [
        {int(name.removeprefix("score_")): score for name, score in row.items() if re.fullmatch(r"score_\d+", name)}
        for row in read_summary(run) or [{}]
    ]
    if not rows[0] or any(row.keys() != rows[0].keys() for row in rows):
        raise CheckpointError(
            f"{Path(run, 'summary.csv')} holds no importance scores of each epoch; a finetuning run is needed."
        )
    return rows


def mean_scores(runs: Sequence[Sequence[Mapping[int, float]]]) -> Importance:
    """Return mean and deviation of the scores of runs with the same resolutions, over the epochs that all have."""
    epochs = min(map(len, runs))
    scores = np.array([[list(row.values()) for row in rows[:epochs]] for rows in runs])

    def by_epoch(values: NDArray[np.float64]) -> _Scores:
        return {epoch: dict(zip(runs[0][0], row, strict=True)) for epoch, row in enumerate(values.tolist(), start=1)}

    return Importance(len(runs), by_epoch(scores.mean(0)), by_epoch(scores.std(0, ddof=1)) if len(runs) > 1 else None)


@paper_style
def plot_importance(result: Importance) -> Figure:
    """Draw a curve per resolution over the epochs, its deviation as a band, and a line where all are equal."""
    figure = new_figure(COLUMN, 2.4)
    draw_scores(figure.subplots(), result, result.resolutions)
    figure.legend(title="resolution (pixels)", loc="outside right upper")
    return figure


def draw_scores(axes: Axes, result: Importance, among: Sequence[int]) -> None:
    """Draw the curves of `plot_importance`, each in the style of its resolution's place ``among`` others."""
    epochs = list(result.mean)
    axes.axhline(1 / len(result.resolutions), color="0.6", linewidth=0.8)
    for r in result.resolutions:
        style = step_style(among.index(r), len(among))
        mean = np.array([row[r] for row in result.mean.values()])
        axes.plot(epochs, mean, marker="o", markersize=2.5, label=str(r), **style)
        if result.deviation is not None:
            spread = np.array([row[r] for row in result.deviation.values()])
            axes.fill_between(epochs, mean - spread, mean + spread, color=style["color"], alpha=0.2, linewidth=0)
    axes.set(xlabel="epoch", ylabel="importance score", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
