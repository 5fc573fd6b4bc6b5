"""The report of a fitted cascade: every single path, and the cascade, on images that the fit did not see."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rsconvert.evaluation import Paired
from rsconvert.runtime.thresholds import Fitted
from rsconvert.text import Table

__all__ = ["CascadeReport", "Outcome", "PathFigures", "best_path"]

_TITLES = ("resolution", "top-1, fit (%)", "top-1 (%)", "multiply-adds (M)", "ms per image", "p", "")
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class PathFigures:
    """One path alone: top-1 in percent on both halves, multiply-adds and milliseconds of one image."""

    top1_fit: float
    top1: float
    multiply_adds: int
    milliseconds: float
    interpolated: bool


@dataclass(frozen=True)
class Outcome:
    """The cascade on the images that it was not fitted to.

    Attributes:
        top1: in percent, each stage's images resized out of one view of the largest resolution.
        top1_interval: its 95 % interval (Wilson).
        top1_own_views: that of the fit's images: each stage has a view of its own, cut out of the original.
        multiply_adds: of one image, on average.
        milliseconds: of one image, the resizing included; as the paths', without reading and cutting images.
        answered: percent of the images by the resolution that answered them.
    """

    count: int
    top1: float
    top1_interval: tuple[float, float]
    top1_own_views: float
    multiply_adds: float
    milliseconds: float
    answered: dict[int, float]


@dataclass(frozen=True)
class CascadeReport:
    """A fitted cascade next to every single path.

    Attributes:
        aim: ``top1`` in percent, or ``multiply_adds``: what the fit was for.
        fit_count: images of the fit, drawn by ``seed``.
        paths: every path that was tried, from the largest to the smallest.
        pairs: the cascade against every path on the measured images.
    """

    aim: dict[str, float]
    seed: int
    fit: Fitted
    fit_count: int
    measured: Outcome
    paths: dict[int, PathFigures]
    pairs: dict[int, Paired]

    @property
    def paired(self) -> Paired:
        """The cascade against the best path."""
        return self.pairs[self.best]

    @property
    def best(self) -> int:
        """The resolution of the best path on the measured images."""
        return best_path(self.paths)

    @property
    def rival(self) -> int:
        """The resolution of the cheapest path that is as good as the cascade, else of the best path."""
        as_good = [r for r, path in self.paths.items() if path.top1 >= self.measured.top1]
        return min(as_good or [self.best], key=lambda r: self.paths[r].multiply_adds)

    @property
    def instead(self) -> int | None:
        """The best path that costs no more than the cascade and is not worse by more than chance; None without one."""
        paths = {r: path for r, path in self.paths.items() if not (self._costs_more(r) or self._is_worse(r))}
        return best_path(paths) if paths else None

    @property
    def gains(self) -> bool:
        """Whether every path that costs no more is worse, by McNemar's test at 5 %."""
        return self.instead is None

    def _costs_more(self, resolution: int) -> bool:
        return self.paths[resolution].multiply_adds > self.measured.multiply_adds

    def _is_worse(self, resolution: int) -> bool:
        return self.paths[resolution].top1 < self.measured.top1 and self.pairs[resolution].p_value < _SIGNIFICANT

    def ratios(self, resolution: int) -> dict[str, float]:
        """Return the cascade's multiply-adds and time divided by a path's."""
        path = self.paths[resolution]
        return {name: getattr(self.measured, name) / getattr(path, name) for name in ("multiply_adds", "milliseconds")}

    def record(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as plain data."""
        measured = {**vars(self.measured), "top1_interval": list(self.measured.top1_interval)}
        measured["answered"] = {str(r): share for r, share in self.measured.answered.items()}
        return {
            "stages": list(self.fit.stages),
            "thresholds": list(self.fit.thresholds),
            "aim": self.aim,
            "seed": self.seed,
            "fit": {"count": self.fit_count, "top1": self.fit.top1, "multiply_adds": self.fit.multiply_adds},
            "measured": measured,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the resolutions as strings."""
        return {
            **self.record(),
            "paths": {str(r): asdict(path) for r, path in self.paths.items()},
            "rival": {"resolution": self.rival, "ratios": self.ratios(self.rival)},
            "best": {"resolution": self.best, "ratios": self.ratios(self.best)},
            "paired": asdict(self.paired),
            "pairs": {str(r): asdict(pair) for r, pair in self.pairs.items()},
            "gains": self.gains,
            "instead": self.instead,
        }

    def __str__(self) -> str:
        rows = [
            (*_cells(str(r), path.top1_fit, path), _p_value(self.pairs[r]), "interpolated" * path.interpolated)
            for r, path in self.paths.items()
        ]
        rows.append((*_cells("cascade", self.fit.top1, self.measured), "", ""))
        return Table(_TITLES, rows, "\n".join(self._lines())).as_text()

    def _lines(self) -> Iterator[str]:
        done, rival, best, pair = self.measured, self.rival, self.best, self.paired
        yield "p: how likely a gap as wide to the cascade is between equals (McNemar, on the same images)"
        yield f"{done.count} images measured, {self.fit_count} others of the fit (seed {self.seed})"
        limits = zip(self.fit.stages, self.fit.thresholds, strict=False)
        steps = [*(f"{r} if sure by {limit:.4f}" for r, limit in limits), str(self.fit.stages[-1])]
        yield f"cascade: {', then '.join(steps)}"
        yield f"answered: {', '.join(f'{share:.1f} % at {r}' for r, share in done.answered.items())}"
        low, high = done.top1_interval
        yield f"top-1 {done.top1:.2f} (95 %: {low:.1f}-{high:.1f}); {done.top1_own_views:.2f} with a view per stage"
        as_good = self.paths[rival].top1 >= done.top1
        yield self._against(rival, "the cheapest path as good" if as_good else "the best path, none is as good")
        if best != rival:
            yield self._against(best, "the best path")
        yield f"right alone: only the cascade {pair.only_network}, only {best} {pair.only_baseline}"
        if self.instead is not None:
            gap, p = done.top1 - self.paths[self.instead].top1, _p_value(self.pairs[self.instead])
            words = "is as good" if gap <= 0 else f"is not significantly worse ({-gap:+.2f} points, p {p})"
            yield f"no gain on these images: the path {self.instead} alone costs no more and {words}"

    def _against(self, resolution: int, words: str) -> str:
        cost, time = self.ratios(resolution).values()
        gain, pair = self.measured.top1 - self.paths[resolution].top1, self.pairs[resolution]
        said = "not significant" if pair.p_value >= _SIGNIFICANT else "significant"
        points = f"{gain:+.2f} points ({said}, p {_p_value(pair)})"
        return f"against {resolution}, {words}: {points}, multiply-adds x {cost:.2f}, time x {time:.2f}"


def best_path(paths: Mapping[int, PathFigures]) -> int:
    """Return the resolution of the most accurate path on the measured images, of equals the cheapest."""
    return max(paths, key=lambda r: (paths[r].top1, -paths[r].multiply_adds))


def _p_value(pair: Paired) -> str:
    return f"{pair.p_value:.2g}" if pair.p_value >= 0.001 else "< 0.001"


def _cells(name: str, fit: float, found: PathFigures | Outcome) -> tuple[object, ...]:
    return name, fit, found.top1, f"{found.multiply_adds / 1e6:.1f}", f"{found.milliseconds:.3f}"
