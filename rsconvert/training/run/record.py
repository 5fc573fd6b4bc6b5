"""What is told of an epoch: the row of the summary, and the note in the file."""

from dataclasses import replace
from typing import Any

from rsconvert.evaluation import Evaluation
from rsconvert.surgery import SwitchableModel
from rsconvert.training.config import FinetuneConfig
from rsconvert.training.run.progress import Progress, Row

__all__ = ["epoch_row", "note_training"]

_KEPT = (
    "epochs",
    "batch_size",
    "alpha_lr",
    "optimizer",
    "weight_decay",
    "distill",
    "labels",
    "train",
    "crop_area",
    "seed",
)


def epoch_row(done: Progress, net: SwitchableModel, result: Evaluation, *, lr: float, images: int) -> Row:
    """Return the row of the epoch in progress: mean loss parts, rate, importance scores, accuracies in percent.

    Args:
        images: how many all processes took.
    """
    names = ("loss", "classification", "ensemble", "distillation")
    row: Row = {"epoch": done.epoch + 1}
    row |= {name: round(value / done.batches, 6) for name, value in zip(names, done.sums, strict=True)}
    row["lr"] = lr
    scores = net.alpha.detach().softmax(0).tolist()
    row |= {f"score_{r}": round(score, 4) for r, score in zip(net.resolutions, scores, strict=True)}
    for r, accuracy in result.resolutions.items():
        row |= {f"top1_{r}": round(accuracy.top1, 3), f"top5_{r}": round(accuracy.top5, 3)}
    if result.ensemble is not None:
        row["top1_ensemble"] = round(result.ensemble.top1, 3)
    row["images_per_second"] = round(images / done.seconds, 1)
    return {**row, "percent_waiting": round(100 * done.waited / done.seconds, 1)}


def note_training(
    net: SwitchableModel, config: FinetuneConfig, lr: float, epoch: int, class_names: tuple[str, ...] | None
) -> None:
    """Note on a network how it was trained; its classifier is new no more."""
    training: dict[str, Any] = {**{name: getattr(config, name) for name in _KEPT}, "lr": lr, "epoch": epoch}
    facts: dict[str, Any] = {"new_classifier": (), "class_names": class_names, "training": training}
    net.source = replace(net.source, **facts)
