"""The accuracy of predicted masks at one size, as plain data and as cells of a table."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from rsconvert.evaluation.overlap import Overlaps, difference_interval, mask_scores, miou_interval
from rsconvert.models import Metric, Task

__all__ = ["MaskAccuracy", "span"]


@dataclass(frozen=True)
class MaskAccuracy:
    """How the masks of one path overlap with the given ones, in percent over all labelled positions, and what it costs.

    Attributes:
        miou: the mean intersection over union of the classes that the given masks hold.
        pixel_accuracy: the positions that are right.
        mean_accuracy: the mean over these classes of their positions that are right.
        multiply_adds: of one image.
        interpolated: whether the path's BN set was not trained at this resolution.
        miou_interval: the 95 % interval of mIoU, by the bootstrap over images.
        per_class: the intersection over union of each class; None for one that no mask holds.
        difference: a baseline's row: its mIoU less the network's, in points, as an interval over the same images.
    """

    miou: float
    pixel_accuracy: float
    mean_accuracy: float
    multiply_adds: int | None = None
    interpolated: bool = False
    miou_interval: tuple[float, float] | None = None
    per_class: tuple[float | None, ...] | None = None
    difference: tuple[float, float] | None = None

    metric: ClassVar[Metric] = Task(name="segmentation").metric
    titles: ClassVar[tuple[str, ...]] = ("mIoU (%)", "95 %", "pixel accuracy (%)", "mean accuracy (%)")
    columns: ClassVar[tuple[str, ...]] = ("miou", "miou_low", "miou_high", "pixel_accuracy", "mean_accuracy")
    paired_columns: ClassVar[tuple[str, ...]] = ("difference_low", "difference_high")
    paired_note: ClassVar[str] = "its 95 % bootstrap interval leaves out 0"

    @classmethod
    def of_matrix(cls, matrix: Tensor) -> "MaskAccuracy":
        """Return that of a confusion matrix (C, C)."""
        scores = mask_scores(matrix)
        return cls(100 * scores.miou, 100 * scores.pixel_accuracy, 100 * scores.mean_accuracy)

    @classmethod
    def of(cls, found: Overlaps, network: Overlaps | None, *, per_class: bool) -> "MaskAccuracy":
        """Return that of a path with its interval, compared with another network's on the same images."""
        row, scores = cls.of_matrix(found.matrix), mask_scores(found.matrix)
        classes = tuple(None if share != share else 100 * share for share in scores.per_class)
        return cls(
            row.miou,
            row.pixel_accuracy,
            row.mean_accuracy,
            miou_interval=miou_interval(found.counts),
            per_class=classes if per_class else None,
            difference=None if network is None else difference_interval(found.counts, network.counts),
        )

    @property
    def score(self) -> float:
        """What networks are judged by: mIoU."""
        return self.miou

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the score."""
        return self.miou_interval

    @property
    def differs(self) -> bool:
        """Whether a baseline's row differs from the network's."""
        return self.difference is not None and not self.difference[0] <= 0 <= self.difference[1]

    @property
    def parts(self) -> dict[str, float]:
        """The figures of a row of a run's summary, by their names."""
        return {name: getattr(self, name) for name in ("miou", "pixel_accuracy", "mean_accuracy")}

    def cells(self) -> list[str]:
        """Return the figures under ``titles``."""
        return [f"{self.miou:.2f}", span(self.miou_interval), f"{self.pixel_accuracy:.2f}", f"{self.mean_accuracy:.2f}"]

    def figures(self) -> list[object]:
        """Return the figures under ``columns`` in full."""
        return [self.miou, *(self.miou_interval or (None, None)), self.pixel_accuracy, self.mean_accuracy]

    def paired_figures(self) -> list[object]:
        """Return the figures under ``paired_columns``."""
        return list(self.difference or (None, None))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without what was not measured."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def span(interval: tuple[float, float] | None) -> str:
    """Return an interval as text."""
    return "" if interval is None else "{:.1f}-{:.1f}".format(*interval)
