"""Comparison: the accuracies of each method at each resolution, their gains against the I-Nets, and how sure they are.

Of one seed the interval is that of the photos; of several the deviation over the seeds is shown.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsconvert.evaluation import drawn_miou, mean_interval, percentiles
from rsconvert.models import Metric, Task
from rsconvert.study.comparison.methods import BASELINE, Method
from rsconvert.study.comparison.plan import Plan, PlannedRun
from rsconvert.study.importance import read_scores
from rsconvert.text import Table, as_html_block

__all__ = ["BySeed", "Comparison", "Estimate", "Evidence", "Line", "RunFacts", "mean_deviation", "tabulate"]

BySeed = Mapping[int, float]
_SECOND = {"top1": "top5", "miou": "pixel_accuracy"}  # what stands next to the score


@dataclass(frozen=True)
class Line:
    """A line of the table: the score (top-1, mIoU) and a second figure of what ``method`` trained.

    Both are in percent, resolution → seed → figure. ``trained`` are the resolutions at which its networks were trained;
    ``multiply_adds`` are those of one image; ``hits`` say which images are right, (N,), resolution → seed, where that
    is known; of masks `Overlaps.counts`.
    """

    name: str
    title: str
    method: Method
    trained: tuple[int, ...]
    score: Mapping[int, BySeed]
    second: Mapping[int, BySeed]
    multiply_adds: Mapping[int, int] = field(default_factory=dict)
    hits: Mapping[int, Mapping[int, Tensor]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The title with the method's variant."""
        return replace(self.method, title=self.title).label

    def evidence(self, resolutions: Iterable[int], seeds: Iterable[int]) -> "Evidence | None":
        """Return what the images say of the mean score at these resolutions with these seeds; None where unknown."""
        wanted = [(r, seed) for r in resolutions for seed in seeds]
        found = [self.hits[r][seed] for r, seed in wanted if seed in self.hits.get(r, {})]
        if not found or len(found) < len(wanted):
            return None
        drawn = found[0].ndim == 3
        each = [drawn_miou(held) if drawn else held.double() for held in found]
        return Evidence(torch.stack(each).mean(0), drawn)


@dataclass(frozen=True)
class Evidence:
    """How often each image is right, (N,), or of masks the mIoU of each bootstrap draw; or differences of these."""

    values: Tensor
    drawn: bool

    def interval(self, ends: tuple[float, float]) -> tuple[float, float]:
        """Return the 95 % interval of the mean, times 100; ``ends`` are those of an image's own values."""
        return percentiles(self.values) if self.drawn else mean_interval(self.values, ends)

    def __sub__(self, other: "Evidence") -> "Evidence":
        return Evidence(self.values - other.values, self.drawn)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds in percent or points, its sample deviation, and its 95 % interval over the images.

    The deviation is None for one seed, the interval where it is unknown which images are right.
    """

    mean: float
    deviation: float | None
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, by_seed: BySeed, evidence: Evidence | None, ends: tuple[float, float]) -> "Estimate":
        """Return the mean of one or more seeds; an image's own values lie within ``ends``."""
        return cls(*mean_deviation(by_seed), None if evidence is None else evidence.interval(ends))

    @property
    def spread(self) -> float | None:
        """What stands behind ±: the deviation over several seeds; of one seed half the interval."""
        if self.deviation is None and self.interval is not None:
            return (self.interval[1] - self.interval[0]) / 2
        return self.deviation

    @property
    def resolved(self) -> bool:
        """Whether a difference is larger than the deviation, and its interval leaves out 0."""
        low, high = self.interval or (self.mean, self.mean)
        return not low <= 0 <= high and abs(self.mean) > (self.deviation or 0.0)

    def text(self, form: str) -> str:
        """Return the mean in a form for numbers, with its spread."""
        return form.format(self.mean) + (f" ± {self.spread:.1f}" if self.spread is not None else "")


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
    ``settings`` what all runs have in common; ``metric`` what they are judged by.
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
    metric: Metric = field(default_factory=lambda: Task().metric)

    @property
    def second(self) -> str:
        """The name of the second figure."""
        return _SECOND[self.metric.key]

    @property
    def learning(self) -> tuple[Method, ...]:
        """The methods that have a finished run and learn alpha."""
        ran = {run.method for run in self.runs}
        return tuple(method for method in self.methods if method.learns_alpha and method.name in ran)

    def gains(self, line: Line) -> dict[int, BySeed]:
        """Return a line's score less its baseline's, in points: resolution → seed, where both are known."""
        base = self._baseline(line)
        if base is None:
            return {}
        both = {r: _difference(line.score[r], base.score[r]) for r in line.score if r in base.score}
        return {r: by_seed for r, by_seed in both.items() if by_seed}

    def accuracy(self, line: Line, *resolutions: int) -> Estimate | None:
        """Return the score of a line, the mean over resolutions; None where no seed has them all."""
        by_seed = self._mean(line.score, resolutions)
        return Estimate.of(by_seed, line.evidence(resolutions, by_seed), (0.0, 1.0)) if by_seed else None

    def gain(self, line: Line, *resolutions: int) -> Estimate | None:
        """Return the gain of a line against its baseline, the mean over resolutions; None where it is unknown."""
        base, by_seed = self._baseline(line), self._mean(self.gains(line), resolutions)
        if base is None or not by_seed:
            return None
        return _paired(by_seed, line.evidence(resolutions, by_seed), base.evidence(resolutions, by_seed))

    def _baseline(self, line: Line) -> Line | None:
        return next((other for other in self.lines if other.name == line.method.baseline != line.name), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with resolutions and seeds as strings."""
        lines = {
            line.name: {
                "title": line.label,
                "trained": list(line.trained),
                self.metric.key: {str(r): _summary(v, self.accuracy(line, r)) for r, v in line.score.items()},
                self.second: {str(r): _summary(v, None) for r, v in line.second.items()},
                "gain": {str(r): _summary(v, self.gain(line, r), gain=True) for r, v in self.gains(line).items()},
                **({"multiply_adds": {str(r): c for r, c in line.multiply_adds.items()}} if line.method.other else {}),
            }
            for line in self.lines
        }
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
        """Return the scores in percent as Markdown, ± as of `Estimate`; italics are untrained resolutions."""
        return self._markdown(f"{self.metric.title} (%) at pixels", self.lines, self.accuracy, "{:.1f}")

    def gain_table(self) -> str:
        """Return the gains against the I-Nets in points, ± as of `Estimate`; in parentheses what is not resolved."""
        lines = [line for line in self.lines if self.gains(line)]
        return self._markdown("gain (points) at pixels", lines, self.gain, "{:+.1f}")

    def other_table(self) -> Table:
        """Return each other network against the most accurate path of no higher cost, of each method that switches."""
        switching = [line for line in self.lines if line.method.learns_alpha]
        rows = []
        for line in self.lines:
            native = max(self.trained)
            if not line.method.other or (own := self.accuracy(line, native)) is None:
                continue
            cells = [self._instead(line, native, other) for other in switching]
            rows.append([line.label, f"{line.multiply_adds[native] / 1e6:.1f}", own.text("{:.1f}"), *cells])
        return Table(
            ["network", "multiply-adds (M)", f"{self.metric.title} (%)", *(line.label for line in switching)], rows
        )

    def _instead(self, line: Line, native: int, switching: Line) -> str:
        """Return the largest path that costs no more than another network, and its score less that network's."""
        sides = [r for r, cost in switching.multiply_adds.items() if cost <= line.multiply_adds[native]]
        if not sides:
            return ""
        r = max(sides)
        by_seed = _difference(switching.score[r], line.score[native])
        if not by_seed:
            return ""
        found = _paired(by_seed, switching.evidence([r], by_seed), line.evidence([native], by_seed))
        return f"at {r} ({switching.multiply_adds[r] / 1e6:.1f} M): {_cell(found, '{:+.1f}', plain=True, gain=True)}"

    def _markdown(self, corner: str, lines: Iterable[Line], estimate: Callable[..., Estimate | None], form: str) -> str:
        costs = [f"{self.multiply_adds[r] / 1e6:.1f}" if r in self.multiply_adds else "" for r in self.resolutions]
        rows, gain = [["multiply-adds (M)", *costs, ""]], "+" in form
        for line in lines:
            cells = [_cell(estimate(line, r), form, plain=r in line.trained, gain=gain) for r in self.resolutions]
            all_trained = set(self.trained) <= set(line.trained)
            mean = _cell(estimate(line, *self.trained), form, plain=all_trained, gain=gain)
            rows.append([line.label, *cells, mean])
        return Table([corner, *map(str, self.resolutions), "mean"], rows).as_markdown()

    def _mean(self, values: Mapping[int, BySeed], resolutions: Sequence[int]) -> dict[int, float]:
        """Return the mean over resolutions, for the seeds that have them all."""
        seeds = [s for s in self.seeds if all(s in values.get(r, ()) for r in resolutions)]
        return {s: statistics.fmean(values[r][s] for r in resolutions) for s in seeds}

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        methods = ", ".join(method.name for method in self.methods)
        return f"<Comparison of {methods} at {', '.join(map(str, self.resolutions))}; seeds {self.seeds}>"

    def _repr_html_(self) -> str:
        return as_html_block(str(self))


def mean_deviation(by_seed: BySeed) -> tuple[float, float | None]:
    """Return the mean over one or more seeds and the sample's standard deviation, which is None for a single seed."""
    values = list(by_seed.values())
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def tabulate(plan: Plan) -> Comparison:
    """Read what the finished runs of a plan reached."""
    found = [(run, result) for run in plan.runs if (result := run.read_result())]
    own = [result for run, result in found if not run.method.other]
    costs = {int(r): row["multiply_adds"] for result in own for r, row in result["resolutions"].items()}
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
        metric=plan.net.source.task.metric,
    )


_Found = Sequence[tuple[PlannedRun, Mapping[str, Any]]]


def _lines(plan: Plan, found: _Found) -> Iterator[Line]:
    for method in plan.methods:
        own = [(run, result) for run, result in found if run.method == method]
        trained = method.trained(plan.net.resolutions)
        whole = _line(plan, method, trained, own)
        if not method.apart:
            yield whole
            continue
        each = {r: _line(plan, method, (r,), [pair for pair in own if pair[0].resolutions == (r,)]) for r in trained}
        sides = [r for r in plan.resolutions if r in each]
        yield replace(
            whole,
            score={r: each[r].score[r] for r in sides},
            second={r: each[r].second[r] for r in sides},
            hits={r: each[r].hits[r] for r in sides},
        )
        if method.fit is None:
            native = plan.net.native
            yield replace(each[native], name=method.name.replace(BASELINE, f"inet-{native}"), title=f"I-{native}")


def _line(plan: Plan, method: Method, trained: tuple[int, ...], found: _Found) -> Line:
    """Return what some runs of a method reached at the resolutions of the test."""
    rows = [(run.seed, result["resolutions"]) for run, result in found]
    key = plan.net.source.task.metric.key
    score, second, costs = (
        {r: {seed: row[str(r)][part] for seed, row in rows if str(r) in row} for r in plan.resolutions}
        for part in (key, _SECOND[key], "multiply_adds")
    )
    right = [(run.seed, run.read_hits()) for run, _ in found]
    hits = {r: {seed: held[str(r)] for seed, held in right if str(r) in held} for r in plan.resolutions}
    cost = {r: next(iter(by_seed.values())) for r, by_seed in costs.items() if by_seed}
    return Line(method.name, method.title, method, trained, score, second, cost, hits)


def _facts(run: PlannedRun, result: Mapping[str, Any]) -> RunFacts:
    scores = tuple(read_scores(run.folder)) if run.method.fit is None else ()
    return RunFacts(run.name, run.method.name, run.seed, result["seconds"], scores, result["machine"])


def _difference(by_seed: BySeed, other: BySeed) -> dict[int, float]:
    return {seed: value - other[seed] for seed, value in by_seed.items() if seed in other}


def _paired(by_seed: BySeed, own: Evidence | None, other: Evidence | None) -> Estimate:
    """Return a difference on the same images."""
    return Estimate.of(by_seed, None if own is None or other is None else own - other, (-1.0, 1.0))


def _summary(by_seed: BySeed, found: Estimate | None, *, gain: bool = False) -> dict[str, Any]:
    mean, spread = mean_deviation(by_seed) if by_seed else (None, None)
    facts: dict[str, Any] = {"mean": mean, "deviation": spread, "seeds": {str(s): v for s, v in by_seed.items()}}
    if found is not None and found.interval is not None:
        facts["interval"] = list(found.interval)
    return {**facts, "resolved": found.resolved} if gain and found is not None else facts


def _cell(found: Estimate | None, form: str, *, plain: bool, gain: bool = False) -> str:
    """Return an estimate as text: in parentheses a difference that is not resolved, in italics what is not plain."""
    if found is None:
        return ""
    text = found.text(form)
    text = f"({text})" if gain and not found.resolved else text
    return text if plain else f"*{text}*"
