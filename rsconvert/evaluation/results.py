"""Results of an evaluation: accuracies by resolution, as plain data and as tables."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from rsconvert.data import Size
from rsconvert.evaluation.mask_accuracy import MaskAccuracy, span
from rsconvert.evaluation.sizes import size_name
from rsconvert.evaluation.uncertainty import mcnemar
from rsconvert.models import Metric, Task
from rsconvert.text import Table

__all__ = ["Accuracy", "Evaluation", "Paired"]


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

    metric: ClassVar[Metric] = Task().metric
    titles: ClassVar[tuple[str, ...]] = ("top-1 (%)", "95 %", "top-5 (%)", "calibration error (%)")
    columns: ClassVar[tuple[str, ...]] = ("top1", "top1_low", "top1_high", "top5", "calibration_error")
    paired_columns: ClassVar[tuple[str, ...]] = ("only_network", "only_baseline", "p_value")
    paired_note: ClassVar[str] = "McNemar, p < 0.05"

    @property
    def score(self) -> float:
        """What networks are judged by: top-1."""
        return self.top1

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the score."""
        return self.top1_interval

    @property
    def differs(self) -> bool:
        """Whether a baseline's row differs from the network's, with p < 0.05."""
        return self.paired is not None and self.paired.p_value < 0.05

    @property
    def parts(self) -> dict[str, float]:
        """The figures of a row of a run's summary, by their names."""
        return {"top1": self.top1, "top5": self.top5}

    def cells(self) -> list[str]:
        """Return the figures under ``titles``."""
        error = "" if self.calibration_error is None else f"{self.calibration_error:.1f}"
        return [f"{self.top1:.2f}", span(self.top1_interval), f"{self.top5:.2f}", error]

    def figures(self) -> list[object]:
        """Return the figures under ``columns`` in full."""
        return [self.top1, *(self.top1_interval or (None, None)), self.top5, self.calibration_error]

    def paired_figures(self) -> list[object]:
        """Return the figures under ``paired_columns``."""
        return [None] * 3 if self.paired is None else list(vars(self.paired).values())

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
    resolutions: dict[Size, Accuracy | MaskAccuracy]
    ensemble: Accuracy | MaskAccuracy | None
    baselines: dict[str, "Evaluation"] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None

    @property
    def mean_score(self) -> float:
        """Mean top-1 over the resolutions, or mean mIoU of masks, in percent."""
        return sum(row.score for row in self.resolutions.values()) / len(self.resolutions)

    @property
    def kind(self) -> type[Accuracy] | type[MaskAccuracy]:
        """What the rows are."""
        return next((type(row) for row in self.resolutions.values()), Accuracy)

    def rows(self) -> dict[str, Accuracy | MaskAccuracy]:
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
        """Return tables of Markdown: a row per path with the baselines' scores next to it; the score of each class."""
        return "\n\n".join(table.as_markdown() for table in self._tables())

    def as_csv(self) -> str:
        """Return one row per network and resolution, all figures in full, and one per class if they were asked for."""
        networks = {"network": self, **self.baselines}
        rows = [_csv_row(self, name, size, row) for name, one in networks.items() for size, row in one.rows().items()]
        columns = ["network", "resolution", "interpolated", "count", *self.kind.columns, "multiply_adds"]
        classes = [f"{self.kind.metric.key} {name}" for name in self.classes or ()]
        return Table([*columns, *self.kind.paired_columns, *classes], rows).as_csv()

    def __str__(self) -> str:
        return "\n\n".join(table.as_text() for table in self._tables())

    def __repr__(self) -> str:
        scores = ", ".join(f"{size}: {row.score:.1f}" for size, row in self.rows().items())
        return f"<Evaluation of {self.count} images, {self.kind.metric.key} in percent at {scores}>"

    def _repr_html_(self) -> str:
        return "".join(table.as_html() for table in self._tables())

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
        kind = self.kind
        if others:
            title, test = kind.metric.title, kind.paired_note
            note += f" Of baselines the {title}; *: it differs from the network's on the same images ({test})."
        tables = [Table(["resolution", *kind.titles, "multiply-adds (M)", *self.baselines, ""], rows, note)]
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


def _csv_row(result: Evaluation, name: str, size: str, row: Accuracy | MaskAccuracy) -> list[object]:
    facts = [name, size, row.interpolated, result.count, *row.figures()]
    return [*facts, row.multiply_adds, *row.paired_figures(), *(row.per_class or ())]


def _cells(size: str, row: Accuracy | MaskAccuracy) -> list[object]:
    cost = "" if row.multiply_adds is None else f"{row.multiply_adds / 1e6:.1f}"
    return [size, *row.cells(), cost]


def _starred(row: Accuracy | MaskAccuracy | None) -> str:
    """Return a baseline's score, starred where it differs."""
    return "" if row is None else f"{row.score:.2f}" + "*" * row.differs


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
