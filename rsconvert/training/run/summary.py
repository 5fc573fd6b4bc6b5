"""The summary of a run: how far it is, the row of each epoch in ``summary.csv``, its curves for TensorBoard."""

import csv
import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rsconvert.checkpoint import replacing
from rsconvert.errors import CheckpointError, ConfigError, install_hint, one_line
from rsconvert.evaluation import Evaluation
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.text import Table
from rsconvert.training.loss import MREDLoss

__all__ = [
    "SUMMARY",
    "Board",
    "Progress",
    "Row",
    "accuracies",
    "epoch_line",
    "epoch_row",
    "epochs_table",
    "note_training",
    "read_summary",
    "write_summary",
]

SUMMARY = "summary.csv"
_LARGEST = 1e12  # of which charts can draw the differences
Row = dict[str, Any]

_NOTED = (
    "epochs",
    "batch_size",
    "lr",
    "probe_epochs",
    "alpha_lr",
    "optimizer",
    "weight_decay",
    "native_weight",
    "distill",
    "labels",
    "train",
    "views",
    "crop_area",
    "start_share",
    "seed",
)
_NOTED_IF_SET = ("bits", "split")


@dataclass
class Progress:
    """Full epochs done; of the one in progress the batches, the sums of their losses, seconds, seconds without data.

    ``best`` is the highest score of an epoch, ``best_epoch`` the first with it, counted from 1; 0 before it is known.
    ``saves`` counts the states written, and numbers them.
    """

    epoch: int = 0
    batches: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    seconds: float = 0.0
    waited: float = 0.0
    rows: list[Row] = field(default_factory=list)
    best: float | None = None
    best_epoch: int = 0
    saves: int = 0

    @classmethod
    def of(cls, facts: Mapping[str, Any], epochs: int) -> "Progress":
        """Read what a state says.

        Raises:
            CheckpointError: it says something that no run of so many epochs wrote.
        """
        counts = [facts.get(name) for name in ("epoch", "batches", "saves")] + [facts.get("best_epoch", 0)]
        numbers = [facts.get("seconds"), facts.get("waited"), facts.get("best") or 0]
        rows, sums = facts.get("rows"), facts.get("sums")
        if (
            facts.keys() <= {item.name for item in fields(cls)}
            and all(type(count) is int and count >= 0 for count in counts)
            and all(type(number) in (int, float) for number in numbers)
            and type(rows) is list
            and len(rows) == facts["epoch"] <= epochs
            and all(type(row) is dict and row for row in rows)
            and type(sums) is list
            and [type(number) for number in sums] == [float] * 4
        ):
            return cls(**facts)
        raise CheckpointError(
            "the state says of its progress what no such run has; one that finetune wrote is needed. Start anew by "
            "--force."
        )

    @property
    def started(self) -> bool:
        return self.epoch > 0 or self.batches > 0

    @property
    def since_best(self) -> int:
        """The epochs since the best one."""
        return self.epoch - self.best_epoch

    def add(self, parts: Sequence[float]) -> None:
        """Count a batch with the parts of its loss."""
        self.sums = [a + b for a, b in zip(self.sums, parts, strict=True)]
        self.batches += 1

    def next_epoch(self, row: Row, score: float) -> bool:
        """Close the epoch in progress; return whether it is the best one so far, the first of equals."""
        is_best = self.best is None or score > self.best
        self.rows.append(row)
        self.epoch += 1
        if is_best:
            self.best, self.best_epoch = score, self.epoch
        self.begin_epoch()
        return is_best

    def begin_epoch(self) -> None:
        """Forget what was done of the epoch in progress."""
        self.batches, self.sums, self.seconds, self.waited = 0, [0.0] * 4, 0.0, 0.0


def epoch_row(done: Progress, net: SwitchableModel, result: Evaluation, *, lr: float, images: int) -> Row:
    """Return the row of the epoch in progress: mean loss parts, rate, importance scores, accuracies in percent.

    Args:
        images: how many all processes took.
    """
    row: Row = {"epoch": done.epoch + 1}
    names = ("loss", *MREDLoss._fields[1:])
    row |= {name: round(value / done.batches, 6) for name, value in zip(names, done.sums, strict=True)}
    row["lr"] = lr
    scores = net.alpha.detach().softmax(0).tolist()
    row |= {f"score_{r}": round(score, 4) for r, score in zip(net.resolutions, scores, strict=True)}
    for r, accuracy in result.resolutions.items():
        row |= {f"{name}_{r}": round(value, 3) for name, value in accuracy.parts.items()}
    if result.ensemble is not None:
        row[f"{result.ensemble.metric.key}_ensemble"] = round(result.ensemble.score, 3)
    row["images_per_second"] = round(images / done.seconds, 1)
    return {**row, "percent_waiting": round(100 * done.waited / done.seconds, 1)}


def epoch_line(row: Row, epochs: int, views: int) -> str:
    """Return a row as a line for people.

    The loss of a step is a sum over its views; here it and its parts are divided by their number, so that they compare
    with the loss of an ordinary network.
    """
    loss, *parts = (row[name] / views for name in ("loss", *MREDLoss._fields[1:]))
    named = zip(("cross entropy", "ensemble", "distillation"), parts, strict=True)
    told = ", ".join(f"{name} {value:.3f}" for name, value in named if value)
    speed = f"{row['images_per_second']:g} images/s"
    return f"epoch {row['epoch']}/{epochs}  loss per view {loss:.3f} ({told})  {accuracies(row)}  {speed}"


def accuracies(row: Row) -> str:
    """Return the accuracies of a row, in percent."""
    title, scores = _scores(row)
    return f"{title} (%) " + "  ".join(f"{size}: {value:.1f}" for size, value in scores.items())


def epochs_table(rows: Sequence[Row], note: str) -> Table:
    """Return what people look for in the rows of a run: losses, accuracies, rate and speed of each epoch."""
    metric, sizes = _scores(rows[0])
    titles = ["epoch", "loss, sum of the views", *(f"{metric} (%) {size}" for size in sizes)]
    lines = [
        (row["epoch"], row["loss"], *_scores(row)[1].values(), f"{row['lr']:.2g}", row["images_per_second"])
        for row in rows
    ]
    return Table([*titles, "learning rate", "images/s"], lines, note)


def _scores(row: Row) -> tuple[str, dict[str, float]]:
    title, prefix = ("mIoU", "miou_") if any(key.startswith("miou_") for key in row) else ("top-1", "top1_")
    return title, {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}


def note_training(
    net: SwitchableModel, config: FinetuneConfig, epoch: int, class_names: tuple[str, ...] | None
) -> None:
    """Record on a network, and so in its file, how it was trained; its classifier is no longer new."""
    training = {**{name: getattr(config, name) for name in _NOTED}, "epoch": epoch}
    training |= {name: value for name in _NOTED_IF_SET if (value := getattr(config, name)) is not None}
    net.source = replace(net.source, new_classifier=(), class_names=class_names, training=training)


def write_summary(folder: Path, rows: Sequence[Row]) -> None:
    """Write the rows of all epochs, whole or not at all."""
    with replacing(folder / SUMMARY) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_summary(folder: str | Path) -> list[dict[str, float]] | None:
    """Return the rows of the summary in a folder, without empty cells; None if there is no summary.

    Raises:
        CheckpointError: it can't be read, or is not a table of numbers.
    """
    path = Path(folder) / SUMMARY
    if not path.is_file():
        return None
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [{name: _number(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise CheckpointError(
            f"{path} is damaged ({one_line(error)}); the table that finetune writes is needed."
        ) from error


def _number(cell: str) -> float:
    number = float(cell)
    if math.isfinite(number) and abs(number) > _LARGEST:
        raise ValueError(f"it holds {cell}")
    return number


class Board:
    """Writes loss parts and rate of each step, and the row of each epoch, into a folder.

    Args:
        first: the first step to write; what an earlier run wrote from there on is dropped.
    Raises:
        ConfigError: the package tensorboard is not installed, or the folder can't be written.
    """

    def __init__(self, folder: str, first: int = 1) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(
                f"log_dir is {folder}, but the package tensorboard is not installed; it writes the curves. "
                f"{install_hint('tensorboard')} Or leave log_dir out."
            )
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._writer = SummaryWriter(folder, purge_step=first)
        except OSError as error:
            raise ConfigError(f"log_dir {folder} can't be written ({error}); a folder is needed.") from error

    def add_step(self, parts: Sequence[float], lr: float, steps: int) -> None:
        """Add the parts of the loss in the order of MREDLoss, and the learning rate."""
        for name, value in zip(MREDLoss._fields, parts, strict=True):
            self._writer.add_scalar(f"step/{name}", value, steps)
        self._writer.add_scalar("step/lr", lr, steps)

    def add_epoch(self, row: Row, steps: int) -> None:
        """Add all numbers of a row of the summary."""
        for name, value in row.items():
            self._writer.add_scalar(f"epoch/{name}", value, steps)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
