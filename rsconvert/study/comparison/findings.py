"""Comparison: the accuracies of each method at each resolution over the seeds, and their gains against the I-Nets."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsconvert.study.comparison.methods import BASELINE, Method
from rsconvert.study.comparison.plan import Plan, PlannedRun
from rsconvert.study.importance import read_scores
from rsconvert.text import Table

__all__ = ["BySeed", "Comparison", "Line", "RunFacts", "mean_deviation", "tabulate"]

BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Line:
    """A line of the table: top-1 and top-5 in percent, resolution → seed → accuracy, of what ``method`` trained.

    ``trained`` are the resolutions at which its networks were trained.
    """

    name: str
    title: str
    method: Method
    trained: tuple[int, ...]
    top1: Mapping[int, BySeed]
    top5: Mapping[int, BySeed]

    @property
    def label(self) -> str:
        """The title with the method's variant."""
        return replace(self.method, title=self.title).label


@dataclass(frozen=True)
class RunFacts:
    """A finished run: its folder within the comparison's, training time, and importance scores after each epoch."""

    folder: str
    method: str
    seed: int
    seconds: float
    scores: tuple[Mapping[int, float], ...]
    machine: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found so far.

    ``resolutions`` are those of the evaluation, ``trained`` those of the network; ``multiply_adds`` of one image;
    ``settings`` what all runs have in common.
    """

    folder: Path
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    resolutions: tuple[int, ...]
    trained: tuple[int, ...]
    multiply_adds: Mapping[int, int]
    images: int
    lines: tuple[Line, ...]
    runs: tuple[RunFacts, ...]
    settings: Mapping[str, Any]

    @property
    def learning(self) -> tuple[Method, ...]:
        """The methods that have a finished run and learn alpha."""
        ran = {run.method for run in self.runs}
        return tuple(method for method in self.methods if method.learns_alpha and method.name in ran)

    def gains(self, line: Line) -> dict[int, BySeed]:
        """Return a line's top-1 less its baseline's, in points: resolution → seed, where both are known."""
        base = next((other.top1 for other in self.lines if other.name == line.method.baseline != line.name), {})
        both = {r: {s: v - base[r][s] for s, v in line.top1[r].items() if s in base[r]} for r in line.top1 if r in base}
        return {r: by_seed for r, by_seed in both.items() if by_seed}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with resolutions and seeds as strings."""
        lines = {}
        for line in self.lines:
            parts = {"top1": line.top1, "top5": line.top5, "gain": self.gains(line)}
            facts = {part: {str(r): _summary(v) for r, v in values.items()} for part, values in parts.items()}
            lines[line.name] = {"title": line.label, "trained": list(line.trained), **facts}
        scores = [[{str(r): score for r, score in row.items()} for row in run.scores] for run in self.runs]
        return {
            "output": str(self.folder),
            "seeds": list(self.seeds),
            "count": self.images,
            "multiply_adds": {str(r): cost for r, cost in self.multiply_adds.items()},
            "methods": lines,
            "runs": [{**vars(run), "scores": rows} for run, rows in zip(self.runs, scores, strict=True)],
            "settings": dict(self.settings),
        }

    def table(self) -> str:
        """Return mean top-1 in percent ± deviation over the seeds as Markdown; italics are untrained resolutions."""
        return self._markdown("top-1 (%) at pixels", [(line, line.top1) for line in self.lines], "{:.1f}")

    def gain_table(self) -> str:
        """Return the gains against the I-Nets in points, mean ± deviation of the differences within each seed."""
        gains = [(line, gains) for line in self.lines if (gains := self.gains(line))]
        return self._markdown("gain (points) at pixels", gains, "{:+.1f}")

    def _markdown(self, corner: str, lines: Iterable[tuple[Line, Mapping[int, BySeed]]], form: str) -> str:
        costs = [f"{self.multiply_adds[r] / 1e6:.1f}" if r in self.multiply_adds else "" for r in self.resolutions]
        rows = [["multiply-adds (M)", *costs, ""]]
        for line, values in lines:
            cells = [_cell(values.get(r, {}), form, plain=r in line.trained) for r in self.resolutions]
            all_trained = set(self.trained) <= set(line.trained)
            rows.append([line.label, *cells, _cell(self._mean(values), form, plain=all_trained)])
        return Table([corner, *map(str, self.resolutions), "mean"], rows).as_markdown()

    def _mean(self, values: Mapping[int, BySeed]) -> dict[int, float]:
        """Return the mean over the network's resolutions, for the seeds that have them all."""
        seeds = [s for s in self.seeds if all(s in values.get(r, ()) for r in self.trained)]
        return {s: statistics.fmean(values[r][s] for r in self.trained) for s in seeds}

    def __str__(self) -> str:
        return self.table()


def mean_deviation(by_seed: BySeed) -> tuple[float, float | None]:
    """Return the mean over one or more seeds and the sample's standard deviation, which is None for a single seed."""
    values = list(by_seed.values())
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def tabulate(plan: Plan) -> Comparison:
    """Read what the finished runs of a plan reached."""
    found = [(run, result) for run in plan.runs if (result := run.read_result())]
    costs = {int(r): row["multiply_adds"] for _, result in found for r, row in result["resolutions"].items()}
    return Comparison(
        folder=plan.folder,
        methods=plan.methods,
        seeds=tuple(seed for seed in plan.seeds if any(run.seed == seed for run, _ in found)),
        resolutions=plan.resolutions,
        trained=plan.net.resolutions,
        multiply_adds={r: costs[r] for r in plan.resolutions if r in costs},
        images=next((result["count"] for _, result in found), 0),
        lines=tuple(_lines(plan, found)),
        runs=tuple(_facts(run, result) for run, result in found),
        settings=plan.settings,
    )


_Found = Sequence[tuple[PlannedRun, Mapping[str, Any]]]
_Accuracies = dict[int, BySeed]


def _lines(plan: Plan, found: _Found) -> Iterator[Line]:
    for method in plan.methods:
        own = [(run, result) for run, result in found if run.method == method]
        trained = method.trained(plan.net.resolutions)
        if not method.apart:
            yield Line(method.name, method.title, method, trained, *_accuracies(plan, own))
            continue
        each = {r: _accuracies(plan, [pair for pair in own if pair[0].resolutions == (r,)]) for r in trained}
        top1, top5 = ({r: each[r][part][r] for r in plan.resolutions if r in trained} for part in (0, 1))
        yield Line(method.name, method.title, method, trained, top1, top5)
        if method.fit is not None:
            continue
        native = plan.net.native
        yield Line(method.name.replace(BASELINE, f"inet-{native}"), f"I-{native}", method, (native,), *each[native])


def _accuracies(plan: Plan, found: _Found) -> tuple[_Accuracies, _Accuracies]:
    """Return top-1 and top-5 by resolution and seed."""

    def read(part: str) -> _Accuracies:
        rows = [(run.seed, result["resolutions"]) for run, result in found]
        return {r: {seed: row[str(r)][part] for seed, row in rows if str(r) in row} for r in plan.resolutions}

    return read("top1"), read("top5")


def _facts(run: PlannedRun, result: Mapping[str, Any]) -> RunFacts:
    scores = tuple(read_scores(run.folder)) if run.method.fit is None else ()
    return RunFacts(run.name, run.method.name, run.seed, result["seconds"], scores, result["machine"])


def _summary(by_seed: BySeed) -> dict[str, Any]:
    mean, spread = mean_deviation(by_seed) if by_seed else (None, None)
    return {"mean": mean, "deviation": spread, "seeds": {str(s): v for s, v in by_seed.items()}}


def _cell(by_seed: BySeed, form: str, *, plain: bool) -> str:
    if not by_seed:
        return ""
    mean, spread = mean_deviation(by_seed)
    text = form.format(mean) + (f" ± {spread:.1f}" if spread is not None else "")
    return text if plain else f"*{text}*"
