"""How predicted masks overlap with the given ones: integer confusion matrices, the scores of them, their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rsconvert.data import Grid, Size, fitted

__all__ = [
    "MaskScores",
    "Overlaps",
    "at_mask",
    "confusion",
    "count_scores",
    "difference_interval",
    "drawn_miou",
    "mask_scores",
    "miou_interval",
    "percentiles",
]

_DRAWS = 1000


class MaskScores(NamedTuple):
    """Shares from 0 to 1, over all positions that are labelled; ``per_class`` holds NaN for a class without any.

    A class counts in ``mean_accuracy`` and ``miou`` if the masks hold it; false predictions of one that they do not
    hold lower the scores of the others.
    """

    pixel_accuracy: float
    mean_accuracy: float
    miou: float
    per_class: tuple[float, ...]


@dataclass(frozen=True)
class Overlaps:
    """What the masks that one path predicts for N images have in common with the given ones.

    Attributes:
        matrix: (C, C), int64: positions of each class (row) that were predicted as each class (column), of all images.
        counts: (N, 3, C), int64: of each image and class the positions that are right, labelled, and predicted.
        broken: images for which a logit is no finite number.
    """

    matrix: Tensor
    counts: Tensor
    broken: int = 0

    @classmethod
    def of(cls, matrices: Sequence[Tensor], broken: int = 0) -> "Overlaps":
        """Return those of images with these confusion matrices."""
        every = torch.stack([*matrices])
        counts = torch.stack([every.diagonal(dim1=1, dim2=2), every.sum(2), every.sum(1)], dim=1)
        return cls(every.sum(0), counts, broken)

    @classmethod
    def joined(cls, parts: Sequence["Overlaps"], classes: int) -> "Overlaps":
        """Return those of several batches as one, on the CPU."""
        empty = torch.zeros(classes, classes, dtype=torch.int64)
        every = [cls(empty, empty.new_zeros(0, 3, classes)), *parts]
        matrix = torch.stack([part.matrix.cpu() for part in every]).sum(0)
        counts = torch.cat([part.counts.cpu() for part in every])
        return cls(matrix, counts, sum(part.broken for part in parts))

    def taken(self, order: Tensor) -> "Overlaps":
        """Return those of the same images in another order, by their places (N,)."""
        return replace(self, counts=self.counts[order])


def confusion(predicted: Tensor, mask: Tensor, classes: int, ignore_index: int | None) -> Tensor:
    """Return the confusion matrix (C, C), int64, of predicted classes with a mask, both (H, W).

    >>> confusion(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 255]]), 2, 255).tolist()
    [[1, 1], [0, 0]]
    """
    labels = mask.long()
    known = labels != ignore_index
    pairs = labels[known] * classes + predicted[known]
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def mask_scores(matrix: Tensor) -> MaskScores:
    """Return the scores of a confusion matrix (C, C), whose rows are the labels.

    >>> [round(score, 3) for score in mask_scores(torch.tensor([[3, 1], [0, 4]]))[:3]]
    [0.875, 0.875, 0.775]
    """
    return count_scores(torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)]))


def count_scores(counts: Tensor) -> MaskScores:
    """Return the scores of one image, whose counts (3, C) are those of `Overlaps`; NaN if none of it is labelled."""
    right, labelled, predicted = counts.double()
    held = labelled > 0
    overlap = right / (labelled + predicted - right)
    per_class = torch.where(held, overlap, torch.nan)
    mean = (right / labelled)[held].mean()
    return MaskScores(
        float(right.sum() / labelled.sum()), float(mean), float(overlap[held].mean()), (*per_class.tolist(),)
    )


def miou_interval(counts: Tensor) -> tuple[float, float]:
    """Return the 95 % interval of mIoU in percent by the bootstrap over images; ``counts`` as of `Overlaps`.

    Of 1,000 draws with replacement from a fixed seed the percentiles 2.5 and 97.5.
    """
    return percentiles(drawn_miou(counts))


def difference_interval(counts: Tensor, other: Tensor) -> tuple[float, float]:
    """Return the interval of one mIoU less another on the same images, which are drawn together, in points."""
    return percentiles(drawn_miou(counts) - drawn_miou(other))


def drawn_miou(counts: Tensor) -> Tensor:
    """Return the mIoU, from 0 to 1, of each of 1,000 draws of N images out of N, the same draws for the same N."""
    images, _, classes = counts.shape
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(images, (_DRAWS, images), generator=generator)
    weights = torch.zeros(_DRAWS, images, dtype=torch.float64)
    weights.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    right, labelled, predicted = (weights @ counts.double().flatten(1)).view(_DRAWS, 3, classes).unbind(1)
    overlap = right / (labelled + predicted - right)
    return torch.where(labelled > 0, overlap, torch.nan).nanmean(1)


def percentiles(values: Tensor) -> tuple[float, float]:
    """Return the percentiles 2.5 and 97.5 of shares, times 100."""
    low, high = (100 * values.quantile(torch.tensor([0.025, 0.975], dtype=values.dtype))).tolist()
    return low, high


def at_mask(logits: Tensor, size: Size, mask: Grid, resize: str) -> Tensor:
    """Return logits (C, h, w) of a view, see ``whole_views``, at the positions of the mask: (C, H, W), bilinear.

    Args:
        size: that of the view, in pixels.
        resize: how the image became the view.
    """
    inner = fitted(mask, size, resize)
    outer = inner if resize != "pad" else (size, size) if isinstance(size, int) else size
    dense = logits[None]
    if inner != outer:
        dense = F.interpolate(dense, outer, mode="bilinear", align_corners=False)[..., : inner[0], : inner[1]]
    if dense.shape[-2:] != mask:
        dense = F.interpolate(dense, mask, mode="bilinear", align_corners=False)
    return dense[0]
