"""Results of an evaluation: accuracies per resolution, as data and as a table."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Accuracy", "Evaluation"]


@dataclass(frozen=True)
class Accuracy:
    """Accuracies in percent; the multiply-adds of one image; whether the path is interpolated."""

    top1: float
    top5: float
    multiply_adds: int | None = None
    interpolated: bool = False


@dataclass(frozen=True)
class Evaluation:
    """The accuracy at each resolution over ``count`` images, and of the ensemble of all trained resolutions.

    ``ensemble`` is None when not every trained resolution was asked for.
    """

    count: int
    resolutions: dict[int, Accuracy]
    ensemble: Accuracy | None

    @property
    def mean_top1(self) -> float:
        """Mean top-1 over the resolutions, in percent."""
        return sum(a.top1 for a in self.resolutions.values()) / len(self.resolutions)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the resolutions as strings."""
        ensemble = None if self.ensemble is None else {"top1": self.ensemble.top1, "top5": self.ensemble.top5}
        rows = {str(r): dict(vars(a)) for r, a in self.resolutions.items()}
        return {"count": self.count, "resolutions": rows, "ensemble": ensemble}

    def __str__(self) -> str:
        lines = [f"{'resolution':>12}{'top-1 (%)':>11}{'top-5 (%)':>11}{'multiply-adds (M)':>19}"]
        for r, row in self.resolutions.items():
            cost = "" if row.multiply_adds is None else f"{row.multiply_adds / 1e6:.1f}"
            note = "  interpolated" if row.interpolated else ""
            lines.append(f"{r:>12}{row.top1:>11.2f}{row.top5:>11.2f}{cost:>19}{note}")
        if self.ensemble is not None:
            lines.append(f"{'ensemble':>12}{self.ensemble.top1:>11.2f}{self.ensemble.top5:>11.2f}")
        return "\n".join([*lines, f"{self.count} images"])
