"""What the fit of a cascade tells: every single path, and the cascade, on images that the fit did not see."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rsconvert.evaluation import Paired
from rsconvert.runtime.cascade.thresholds import Fitted

__all__ = ["CascadeReport", "Outcome", "PathFigures", "best_path"]


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
    """A fitted cascade beside every single path.

    Attributes:
        aim: ``top1`` in percent, or ``multiply_adds``: what the fit was for.
        fit_count: images of the fit, drawn by ``seed``.
        paths: every path that was tried, from the largest to the smallest.
        paired: the cascade against the best path on the measured images.
    """

    aim: dict[str, float]
    seed: int
    fit: Fitted
    fit_count: int
    measured: Outcome
    paths: dict[int, PathFigures]
    paired: Paired

    @property
    def best(self) -> int:
        """The resolution of the best path on the measured images."""
        return best_path(self.paths)

    @property
    def rival(self) -> int:
        """The resolution of the cheapest path that is as good as the cascade, else of the best path."""
        as_good = [r for r, path in self.paths.items() if path.top1 >= self.measured.top1]
        return min(as_good or [self.best], key=lambda r: self.paths[r].multiply_adds)

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
        beside = {"rival": self.rival, "best": self.best}
        return {
            **self.record(),
            "paths": {str(r): dict(vars(path)) for r, path in self.paths.items()},
            **{name: {"resolution": r, "ratios": self.ratios(r)} for name, r in beside.items()},
            "paired": dict(vars(self.paired)),
        }

    def __str__(self) -> str:
        done = self.measured
        titles = ("resolution", "top-1, fit (%)", "top-1 (%)", "multiply-adds (M)", "ms per image", "")
        rows: list[tuple[str, ...]] = [titles]
        for r, p in self.paths.items():
            note = "interpolated" if p.interpolated else ""
            rows.append(_row(str(r), p.top1_fit, p.top1, p.multiply_adds, p.milliseconds, note))
        rows.append(_row("cascade", self.fit.top1, done.top1, done.multiply_adds, done.milliseconds, ""))
        widths = [max(len(row[i]) for row in rows) + 2 for i in range(5)]
        lines = [
            "".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False)) + f"  {row[5]}".rstrip()
            for row in rows
        ]
        return "\n".join([*lines, *self._words()])

    def _words(self) -> list[str]:
        done, rival = self.measured, self.paths[self.rival]
        steps = [f"{r} if sure by {limit:.4f}" for r, limit in zip(self.fit.stages, self.fit.thresholds, strict=False)]
        shares = ", ".join(f"{share:.1f} % at {r}" for r, share in done.answered.items())
        kind = "the cheapest path as good" if rival.top1 >= done.top1 else "the best path, none is as good"
        beside = [(self.rival, kind)] + ([(self.best, "the best path")] if self.best != self.rival else [])
        low, high = done.top1_interval
        lines = [
            f"{done.count} images measured, {self.fit_count} others of the fit (seed {self.seed})",
            f"cascade: {', then '.join([*steps, str(self.fit.stages[-1])])}",
            f"answered: {shares}",
            f"top-1 {done.top1:.2f} (95 %: {low:.1f}-{high:.1f}); {done.top1_own_views:.2f} with a view per stage",
        ]
        for r, words in beside:
            cost, time = self.ratios(r).values()
            lines.append(
                f"against {r}, {words}: {done.top1 - self.paths[r].top1:+.2f} points, multiply-adds x {cost:.2f}, "
                f"time x {time:.2f}"
            )
        pair = self.paired
        told = f"only the cascade {pair.only_network}, only {self.best} {pair.only_baseline}, p = {pair.p_value:.3g}"
        lines.append(f"right alone: {told} (McNemar)")
        if self.ratios(self.rival)["multiply_adds"] >= 1:
            lines.append(f"no gain on these images: the path {self.rival} alone costs no more")
        return lines


def best_path(paths: Mapping[int, PathFigures]) -> int:
    """Return the resolution of the most accurate path on the measured images, of equals the cheapest."""
    return max(paths, key=lambda r: (paths[r].top1, -paths[r].multiply_adds))


def _row(name: str, fit: float, top1: float, cost: float, ms: float, note: str) -> tuple[str, ...]:
    return name, f"{fit:.2f}", f"{top1:.2f}", f"{cost / 1e6:.1f}", f"{ms:.3f}", note
