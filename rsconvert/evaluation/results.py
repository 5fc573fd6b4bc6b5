"""Results of an evaluation: accuracies by resolution, as plain data."""

from dataclasses import dataclass, field
from typing import Any

from rsconvert.data import Size
from rsconvert.evaluation.sizes import size_name

__all__ = ["Accuracy", "Evaluation", "Paired"]


@dataclass(frozen=True)
class Paired:
    """A baseline against the network on the same images: how many each of them alone got right.

    ``p_value`` is that of the exact two-sided McNemar test: how likely a gap as wide is between equals.
    """

    only_network: int
    only_baseline: int
    p_value: float


@dataclass(frozen=True)
class Accuracy:
    """What one path gets right, in percent, and what it costs.

    Attributes:
        multiply_adds: of one image.
        interpolated: whether the path's BN set was not trained at this resolution.
        top1_interval: the 95 % interval of top-1 (Wilson).
        calibration_error: the expected gap between confidence and top-1, over 15 bins (Guo et al. 2017).
        per_class: the top-1 of each class of the data; None for one without images.
        paired: a baseline's row beside the network's.
    """

    top1: float
    top5: float
    multiply_adds: int | None = None
    interpolated: bool = False
    top1_interval: tuple[float, float] | None = None
    calibration_error: float | None = None
    per_class: tuple[float | None, ...] | None = None
    paired: Paired | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without what was not measured."""
        known = {key: value for key, value in vars(self).items() if value is not None}
        return known | ({} if self.paired is None else {"paired": dict(vars(self.paired))})


@dataclass(frozen=True)
class Evaluation:
    """The accuracy at each resolution over ``count`` images, and of the ensemble of all trained resolutions.

    Attributes:
        ensemble: None when not every trained resolution was asked for.
        baselines: the same of other networks, by name.
        classes: the names in the order of ``per_class``, if classes were asked for.
    """

    count: int
    resolutions: dict[Size, Accuracy]
    ensemble: Accuracy | None
    baselines: dict[str, "Evaluation"] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None

    @property
    def mean_top1(self) -> float:
        """Mean top-1 over the resolutions, in percent."""
        return sum(a.top1 for a in self.resolutions.values()) / len(self.resolutions)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the resolutions as strings."""
        facts = {"count": self.count, **_rows(self)}
        if self.baselines:
            facts["baselines"] = {name: _rows(result) for name, result in self.baselines.items()}
        return facts if self.classes is None else {**facts, "classes": list(self.classes)}

    def __str__(self) -> str:
        from rsconvert.evaluation.tables import as_text  # which reads these classes

        return as_text(self)


def _rows(result: Evaluation) -> dict[str, Any]:
    ensemble = None
    if result.ensemble is not None:
        ensemble = result.ensemble.to_dict()
        del ensemble["interpolated"]
    rows = {size_name(size): row.to_dict() for size, row in result.resolutions.items()}
    return {"resolutions": rows, "ensemble": ensemble}
