"""What a page shows of predicted masks, as plain data: their figures, and some images under the colours of classes."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rsconvert.data import Samples, Size, WholeImages, fitted, nearest, resolution_of
from rsconvert.errors import DataError
from rsconvert.evaluation import (
    NETWORK,
    Amp,
    Evaluation,
    Overlaps,
    Predictions,
    choose_precision,
    count_scores,
    size_name,
)
from rsconvert.runtime import PredictedMask, class_palette
from rsconvert.study.report.facts import data_uri
from rsconvert.surgery import eval_mode

__all__ = ["check_label_count", "drawn_masks", "mask_facts", "overlay_views"]


def mask_facts(found: Predictions, evaluation: Evaluation, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the figures of all paths, from the largest size to the smallest, with the colour of each class.

    What counts whole images as right or wrong is None.

    Raises:
        DataError: the number of labels is not that of the classes.
    """
    sizes = sorted(found.subjects[NETWORK].paths, key=resolution_of, reverse=True)
    names = list(labels or found.class_labels)
    check_label_count(names, len(found.class_labels))
    colours = class_palette()
    return {
        "sizes": [size_name(size) for size in sizes],
        "classes": names,
        "colours": [f"#{bytes(colours[i % len(colours)]).hex()}" for i in range(len(names))],
        "evaluation": evaluation.to_dict(),
        **dict.fromkeys(("complementarity", "any_path", "confusion", "mistakes")),
    }


def check_label_count(labels: Sequence[str], classes: int | None) -> None:
    """Raise a DataError unless there is a label for each class; their number may be unknown yet."""
    if classes not in (None, len(labels)):
        raise DataError(
            f"the class names are {len(labels)}; the network has {classes} classes, and one line for each is needed."
        )


def drawn_masks(found: Predictions, drawn: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return of some images the name, the classes on their masks, and network → size → mIoU of the image in percent.

    The classes are those of the given mask and of the network's; the score of an image without labels is None.
    """
    return [
        {
            "index": index,
            "name": name,
            "classes": _held(found, index),
            "scores": {
                network: {
                    "ensemble" if size is None else size_name(size): _score(overlaps, index)
                    for size, overlaps in by_size.items()
                }
                for network, by_size in found.overlaps.items()
            },
        }
        for index, name in zip(drawn, names, strict=True)
    ]


@torch.no_grad()
def overlay_views(
    found: Predictions, samples: Samples, drawn: Sequence[int], amp: Amp = None
) -> Iterator[dict[str, Any]]:
    """Yield for each drawn image its shape, and its views under the colours of their masks, as JPEGs in data URIs.

    ``given`` is the largest view with the given mask, ``views`` each view with the predicted one, by its size's name.
    ``shape`` is the image's width and height: a squashed view is shown in it.

    Raises:
        DataError: an image can't be read.
    """
    subject = found.subjects[NETWORK]
    precision = choose_precision(amp, subject.device)
    largest, how = max(subject.paths, key=resolution_of), subject.preprocessing
    images = WholeImages(
        samples, [*subject.paths], resize=subject.resize, interpolation=how.interpolation, fill=how.mean
    )
    with eval_mode(subject.paths.values()):
        for index in drawn:
            if isinstance(seen := images[index], DataError):
                raise seen
            views, mask = dict(zip(subject.paths, seen[0], strict=True)), seen[1].long()
            (masks,) = subject.masks([view[None] for view in seen[0]], [(mask.shape[0], mask.shape[1])], precision)
            overlay = partial(_overlay, resize=subject.resize)
            pictures = {size_name(size): overlay(view, masks[size].cpu(), size) for size, view in views.items()}
            yield {"shape": mask.shape[::-1], "given": overlay(views[largest], mask, largest), "views": pictures}


def _overlay(view: Tensor, mask: Tensor, size: Size, resize: str) -> str:
    """Return a view, without what it was filled up with, under the colours of a mask, which may have another size."""
    height, width = fitted((mask.shape[0], mask.shape[1]), size, resize)
    classes = nearest(mask, height, width)
    return data_uri(PredictedMask("", resolution_of(size), view[:, :height, :width], classes).overlay())


def _held(found: Predictions, index: int) -> list[int]:
    predicted = [own.counts[index, 2] for own in found.overlaps[NETWORK].values()]
    return [int(i) for i in torch.stack([found.targets[index], *predicted]).sum(0).nonzero().flatten()]


def _score(overlaps: Overlaps, index: int) -> float | None:
    miou = count_scores(overlaps.counts[index]).miou
    return None if math.isnan(miou) else 100 * miou
