"""The importance scores of the resolutions over training: softmax(alpha) (RS-Nets, Appendix A)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.study.figures import COLUMN, new_figure, paper_style, step_style
from rsconvert.text import Table
from rsconvert.training import read_summary

__all__ = ["Importance", "importance", "plot_importance", "read_scores"]

_Scores = dict[int, tuple[float, ...]]


@dataclass(frozen=True)
class Importance:
    """Scores after each epoch, over one or several runs of the same resolutions.

    Attributes:
        runs: how many.
        mean: epoch → a score per resolution, the mean over the runs; the scores of an epoch sum to 1.
        deviation: the standard deviation over the runs (n - 1); None for one run.
    """

    runs: int
    resolutions: tuple[int, ...]
    mean: _Scores
    deviation: _Scores | None

    @property
    def falling(self) -> bool:
        """Whether at the end each resolution has a lower score than the next larger one."""
        return all(upper > lower for upper, lower in pairwise(self.mean[max(self.mean)]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with epochs and resolutions as strings."""

        def named(scores: _Scores) -> dict[str, dict[str, float]]:
            return {
                str(epoch): dict(zip(map(str, self.resolutions), row, strict=True)) for epoch, row in scores.items()
            }

        deviation = None if self.deviation is None else named(self.deviation)
        return {"runs": self.runs, "falling": self.falling, "mean": named(self.mean), "deviation": deviation}

    def table(self) -> Table:
        """Return a row per epoch."""
        spread = [] if self.deviation is None else [f"± {r}" for r in self.resolutions]
        titles = ["epoch", *map(str, self.resolutions), *spread]
        rows = [[epoch, *scores, *(self.deviation or {}).get(epoch, ())] for epoch, scores in self.mean.items()]
        fall = "fall" if self.falling else "do not fall"
        return Table(titles, rows, f"Runs: {self.runs}. At the end the scores {fall} with the resolution.")


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
    resolutions = read[0][0]
    if other := [(run, sides) for run, (sides, _) in zip(runs, read, strict=True) if sides != resolutions]:
        raise ConfigError(
            f"{other[0][0]} has the resolutions {other[0][1]}, {runs[0]} {resolutions}; a mean needs runs with the "
            "same resolutions."
        )
    epochs = min(len(rows) for _, rows in read)
    scores = np.array([rows[:epochs] for _, rows in read])
    deviation = _by_epoch(scores.std(0, ddof=1)) if len(read) > 1 else None
    return Importance(len(read), resolutions, _by_epoch(scores.mean(0)), deviation)


def read_scores(run: str | Path) -> tuple[tuple[int, ...], list[list[float]]]:
    """Return the resolutions of a finetuning run, and after each epoch a score for each.

    Raises:
        CheckpointError: the folder holds no summary of a run with scores.
    """
    rows = read_summary(run) or [{}]
    sides = [name.removeprefix("score_") for name in rows[0] if name.startswith("score_")]
    scores = [[row[f"score_{side}"] for side in sides if f"score_{side}" in row] for row in rows]
    if not sides or not all(map(str.isdecimal, sides)) or any(len(row) < len(sides) for row in scores):
        raise CheckpointError(
            f"{Path(run, 'summary.csv')} holds no importance scores of each epoch; the folder of a finetuning run is "
            "needed."
        )
    return tuple(map(int, sides)), scores


@paper_style
def plot_importance(result: Importance) -> Figure:
    """Draw a curve per resolution over the epochs, its deviation as a band, and a line where all are equal."""
    figure = new_figure(COLUMN, 2.4)
    axes = figure.subplots()
    epochs, mean = list(result.mean), np.array(list(result.mean.values()))
    count = len(result.resolutions)
    axes.axhline(1 / count, color="0.6", linewidth=0.8)
    for i, resolution in enumerate(result.resolutions):
        style = step_style(i, count)
        axes.plot(epochs, mean[:, i], marker="o", markersize=2.5, label=str(resolution), **style)
        if result.deviation is not None:
            spread = np.array(list(result.deviation.values()))[:, i]
            low, high = mean[:, i] - spread, mean[:, i] + spread
            axes.fill_between(epochs, low, high, color=style["color"], alpha=0.2, linewidth=0)
    axes.set(xlabel="epoch", ylabel="importance score", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(title="resolution (pixels)", loc="outside right upper")
    return figure


def _by_epoch(scores: NDArray[np.float64]) -> _Scores:
    return dict(enumerate(map(tuple, scores.tolist()), start=1))
