"""Results of an evaluation: accuracies by resolution, as plain data and as tables."""

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from rsconvert.data import Size
from rsconvert.evaluation.sizes import size_name
from rsconvert.evaluation.uncertainty import mcnemar
from rsconvert.text import Table

__all__ = ["Accuracy", "Evaluation", "Paired"]

_TITLES = ("resolution", "top-1 (%)", "95 %", "top-5 (%)", "calibration error (%)", "multiply-adds (M)")
_COLUMNS = (
    "network", "resolution", "interpolated", "count", "top1", "top1_low", "top1_high", "top5", "calibration_error",
    "multiply_adds", "only_network", "only_baseline", "p_value",
)  # fmt: skip


@dataclass(frozen=True)
class Paired:
    """A baseline against the network on the same images: how many each of them alone got right.

    ``p_value`` is that of the exact two-sided McNemar test: how likely a gap as wide is between equals.
    """

    only_network: int
    only_baseline: int
    p_value: float

    @classmethod
    def of(cls, network: Tensor, baseline: Tensor) -> "Paired":
        """Compare which of the same images each gets right, (N,), bool."""
        alone = int((network & ~baseline).sum()), int((baseline & ~network).sum())
        return cls(*alone, mcnemar(*alone))


@dataclass(frozen=True)
class Accuracy:
    """What one path gets right, in percent, and what it costs.

    Attributes:
        multiply_adds: of one image.
        interpolated: whether the path's BN set was not trained at this resolution.
        top1_interval: the 95 % interval of top-1 (Wilson).
        calibration_error: the expected gap between confidence and top-1, over 15 bins (Guo et al. 2017).
        per_class: the top-1 of each class of the data; None for one without images.
        paired: a baseline's row against the network's.
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
        return {key: value for key, value in asdict(self).items() if value is not None}


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

    def rows(self) -> dict[str, Accuracy]:
        """Return all accuracies by the name of their size, that of the ensemble last, if there is one."""
        rows = {size_name(size): row for size, row in self.resolutions.items()}
        return rows if self.ensemble is None else {**rows, "ensemble": self.ensemble}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the resolutions as strings."""
        facts = {"count": self.count, **_facts(self)}
        if self.baselines:
            facts["baselines"] = {name: _facts(result) for name, result in self.baselines.items()}
        return facts if self.classes is None else {**facts, "classes": list(self.classes)}

    def as_markdown(self) -> str:
        """Return tables of Markdown: a row per path with the baselines' top-1 next to it; the top-1 of each class."""
        return "\n\n".join(table.as_markdown() for table in self._tables())

    def as_csv(self) -> str:
        """Return one row per network and resolution, all figures in full, and one per class if they were asked for."""
        networks = {"network": self, **self.baselines}
        rows = [_csv_row(self, name, size, row) for name, one in networks.items() for size, row in one.rows().items()]
        return Table([*_COLUMNS, *(f"top1 {name}" for name in self.classes or ())], rows).as_csv()

    def __str__(self) -> str:
        return "\n\n".join(table.as_text() for table in self._tables())

    def _tables(self) -> list[Table]:
        others = [other.rows() for other in self.baselines.values()]
        rows = [
            [
                *_cells(size, row),
                *(_starred(other.get(size)) for other in others),
                "interpolated" if row.interpolated else "",
            ]
            for size, row in self.rows().items()
        ]
        note = f"{self.count} images."
        if others:
            note += " Of baselines the top-1; *: it differs from the network's on the same images (McNemar, p < 0.05)."
        tables = [Table([*_TITLES, *self.baselines, ""], rows, note)]
        if self.classes is not None:
            columns = [row.per_class or () for row in self.resolutions.values()]
            lines = [[name, *map(_percent, top1)] for name, *top1 in zip(self.classes, *columns, strict=True)]
            tables.append(Table(["class", *map(size_name, self.resolutions)], lines))
        return tables


def _facts(result: Evaluation) -> dict[str, Any]:
    rows = {size: row.to_dict() for size, row in result.rows().items()}
    if (ensemble := rows.pop("ensemble", None)) is not None:
        del ensemble["interpolated"]
    return {"resolutions": rows, "ensemble": ensemble}


def _csv_row(result: Evaluation, name: str, size: str, row: Accuracy) -> list[object]:
    low, high = row.top1_interval or (None, None)
    paired = (None,) * 3 if row.paired is None else vars(row.paired).values()
    facts = [name, size, row.interpolated, result.count, row.top1, low, high, row.top5, row.calibration_error]
    return [*facts, row.multiply_adds, *paired, *(row.per_class or ())]


def _cells(size: str, row: Accuracy) -> list[object]:
    interval = "" if row.top1_interval is None else "{:.1f}-{:.1f}".format(*row.top1_interval)
    error = "" if row.calibration_error is None else f"{row.calibration_error:.1f}"
    cost = "" if row.multiply_adds is None else f"{row.multiply_adds / 1e6:.1f}"
    return [size, f"{row.top1:.2f}", interval, f"{row.top5:.2f}", error, cost]


def _starred(row: Accuracy | None) -> str:
    """Return a baseline's top-1, starred where a gap as wide has less than 5 % chance between equals."""
    if row is None:
        return ""
    return f"{row.top1:.2f}" + ("*" if row.paired is not None and row.paired.p_value < 0.05 else "")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
