"""The importance scores of the resolutions over training: softmax(alpha) (RS-Nets, Appendix A)."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.study.paper.style import COLUMN, new_figure, paper_style, step_style
from rsconvert.study.paper.tables import Table

__all__ = ["Importance", "importance", "plot_importance"]

_SCORE = "score_"


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
    mean: dict[int, tuple[float, ...]]
    deviation: dict[int, tuple[float, ...]] | None

    @property
    def falling(self) -> bool:
        """Whether at the end each resolution has a lower score than the next larger one."""
        return all(upper > lower for upper, lower in pairwise(self.mean[max(self.mean)]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with epochs and resolutions as strings."""
        names = [str(r) for r in self.resolutions]

        def plain(scores: dict[int, tuple[float, ...]]) -> dict[str, dict[str, float]]:
            return {str(epoch): dict(zip(names, row, strict=True)) for epoch, row in scores.items()}

        deviation = None if self.deviation is None else plain(self.deviation)
        return {"runs": self.runs, "falling": self.falling, "mean": plain(self.mean), "deviation": deviation}

    def table(self) -> Table:
        """Return a row per epoch."""
        titles = ["epoch", *map(str, self.resolutions)]
        if self.deviation is not None:
            titles += [f"± {r}" for r in self.resolutions]
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
    read = [_scores(Path(run)) for run in runs]
    resolutions = read[0][0]
    if other := [(run, sides) for run, (sides, _) in zip(runs, read, strict=True) if sides != resolutions]:
        raise ConfigError(
            f"{other[0][0]} has the resolutions {other[0][1]}, {runs[0]} {resolutions}; a mean needs the same ones. "
            "Give runs of one list."
        )
    epochs = range(1, min(len(rows) for _, rows in read) + 1)
    scores = np.array([rows[: len(epochs)] for _, rows in read])
    mean = dict(zip(epochs, map(tuple, scores.mean(0).tolist()), strict=True))
    if len(read) == 1:
        return Importance(1, resolutions, mean, None)
    deviation = dict(zip(epochs, map(tuple, scores.std(0, ddof=1).tolist()), strict=True))
    return Importance(len(read), resolutions, mean, deviation)


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


def _scores(run: Path) -> tuple[tuple[int, ...], list[list[float]]]:
    """Return the resolutions of a run, and its scores by epoch."""
    path = run / "summary.csv"
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = [name for name in rows[0] if name.startswith(_SCORE)]
        scores = [[float(row[name]) for name in names] for row in rows]
        return tuple(int(name.removeprefix(_SCORE)) for name in names), _complete(scores)
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise CheckpointError(
            f"{path} holds no importance scores ({error}); the folder of a finetuning run is needed. Check the path."
        ) from error


def _complete(scores: list[list[float]]) -> list[list[float]]:
    if not scores[0]:
        raise ValueError(f"no column {_SCORE}…")
    return scores
