"""run_demo: train an ordinary network, make it switchable, finetune, compare, export."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsconvert.checkpoint import save
from rsconvert.demo.drawing import PATTERNS, write_images
from rsconvert.errors import CheckpointError
from rsconvert.evaluation import Evaluation, evaluate
from rsconvert.export import export_timm
from rsconvert.models import create_model
from rsconvert.settings import FinetuneConfig
from rsconvert.study import plot_accuracy, save_figure
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.training import finetune

__all__ = ["DemoResult", "run_demo"]

_TRAINED = (96, 80, 64, 48, 32)
_EVALUATED = (96, 88, 80, 72, 64, 56, 48, 40, 32)
_ARCHITECTURE, _KWARGS = "resnet10t", {"channels": (24, 32, 64, 96), "stem_width": 16}

_MARK = ".rsconvert-demo"

Log = Callable[[str], None]


@dataclass(frozen=True)
class DemoResult:
    """The two networks' accuracy at nine resolutions, the folder, and the time in seconds."""

    folder: Path
    ordinary: Evaluation
    switchable: Evaluation
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        both = {"ordinary": self.ordinary.to_dict(), "switchable": self.switchable.to_dict()}
        return {"folder": str(self.folder), "seconds": round(self.seconds, 1), **both}

    def table(self) -> str:
        """Return the comparison as a Markdown table, top-1 in percent."""
        lines = [
            "| resolution | multiply-adds (M) | ordinary | switchable | gain |",
            "|---|---|---|---|---|",
        ]
        for r, new in self.switchable.resolutions.items():
            old, name = self.ordinary.resolutions[r], f"{r}{' (interpolated)' if new.interpolated else ''}"
            cost = (new.multiply_adds or 0) / 1e6
            before, after = round(old.top1, 1), round(new.top1, 1)
            lines.append(f"| {name} | {cost:.1f} | {before:.1f} | {after:.1f} | {after - before:+.1f} |")
        return "\n".join(lines)

    def __str__(self) -> str:
        files = ", ".join(sorted(p.name for p in self.folder.iterdir() if p.name != _MARK))
        return f"{self.table()}\n\n{self.seconds:.0f} s; {self.folder} holds {files}"


def run_demo(
    folder: str | Path,
    *,
    seed: int = 0,
    force: bool = False,
    images_per_class: int = 200,
    epochs: tuple[int, int] = (8, 6),
    log: Log | None = None,
) -> DemoResult:
    """Run the main job on drawn images and leave a table, a figure, the checkpoint and a plain export in ``folder``.

    Args:
        images_per_class: drawings to train on; half as many to evaluate on.
        epochs: of the ordinary training and of the finetuning.
        log: is called with a line for each step.
    Raises:
        CheckpointError: the folder exists and ``force`` is not set, or can't be written.
    """
    say = log or (lambda _: None)
    started = time.perf_counter()
    try:
        place = _fresh(Path(folder), force)
        before, after = _tell_story(place, images_per_class, epochs, seed, say)
        result = DemoResult(place, before, after, time.perf_counter() - started)
        (place / "table.md").write_text(result.table() + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{folder} can't be written ({error}); a folder with room is needed. Choose another."
        ) from error
    return result


def _tell_story(
    place: Path, images_per_class: int, epochs: tuple[int, int], seed: int, say: Log
) -> tuple[Evaluation, Evaluation]:
    """Return what the ordinary and the switchable network reach; leave figure, checkpoint and export in ``place``."""
    images = _draw_images(place, images_per_class, seed, say)
    ordinary = _train_ordinary(images, epochs[0], seed, say)
    switchable = _make_switchable(ordinary, images, place, epochs[1], seed, say)
    say(f"evaluating both networks at {len(_EVALUATED)} resolutions")
    before, after = (evaluate(net, str(images), _EVALUATED) for net in (ordinary, switchable))
    save(switchable, place / "switchable.safetensors")
    export_timm(switchable, 64, place / "plain-64")
    save_figure(plot_accuracy({"ordinary": before, "switchable": after}), place / "accuracy.png")
    return before, after


def _fresh(folder: Path, force: bool) -> Path:
    """Make an empty folder, in place of an earlier demo's alone."""
    if folder.exists() and not force:
        raise CheckpointError(f"{folder} exists; a new folder is needed. Choose another by --output, or use --force.")
    if folder.exists() and not (folder / _MARK).is_file():
        raise CheckpointError(
            f"{folder} was not made by a demo and is left alone; a new folder is needed. Choose another."
        )
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARK).write_text("rsconvert demo --force replaces a folder that holds this file.\n", encoding="utf-8")
    return folder


def _draw_images(place: Path, per_class: int, seed: int, say: Log) -> Path:
    images = place / "images"
    say(f"drawing {len(PATTERNS)} classes, {per_class} training and {per_class // 2} evaluation images each")
    rng = np.random.default_rng(seed)
    for split, count in (("train", per_class), ("val", per_class // 2)):
        write_images(images, split, count, rng)
    return images


def _train_ordinary(images: Path, epochs: int, seed: int, say: Log) -> SwitchableModel:
    """Train a small CNN at the native resolution alone: a network of one resolution is an ordinary one."""
    say(f"training an ordinary, narrow {_ARCHITECTURE} at {_TRAINED[0]} pixels, {epochs} epochs")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = create_model(_ARCHITECTURE, num_classes=len(PATTERNS), model_kwargs=_KWARGS)
    net = make_switchable(model, _TRAINED[:1])
    finetune(net, str(images), config=_settings(epochs, 0.1, seed), on_epoch=lambda row: _tell(row, epochs, say))
    return net


def _make_switchable(
    ordinary: SwitchableModel, images: Path, place: Path, epochs: int, seed: int, say: Log
) -> SwitchableModel:
    net = make_switchable(ordinary.extract(_TRAINED[0]), _TRAINED)
    assert net.report is not None
    count = len(net.report.batchnorms)
    say(f"converted {count} BatchNorms to {len(_TRAINED)} resolutions, every path equal to the source")
    say(f"finetuning all resolutions together, {epochs} epochs")
    finetune(
        net, str(images), place / "run", _settings(epochs, 0.005, seed), on_epoch=lambda row: _tell(row, epochs, say)
    )
    return net


def _settings(epochs: int, lr: float, seed: int) -> FinetuneConfig:
    return FinetuneConfig(epochs=epochs, batch_size=32, lr=lr, weight_decay=5e-4, seed=seed, warmup_epochs=1.0)


def _tell(row: dict[str, Any], epochs: int, say: Log) -> None:
    top1 = {key[5:]: value for key, value in row.items() if key.startswith("top1_") and key[5:].isdigit()}
    accuracy = ", ".join(f"{value:.1f} at {r}" for r, value in top1.items())
    loss, speed = row["classification"] / len(top1), row["images_per_second"]
    say(f"  epoch {row['epoch']}/{epochs}: cross entropy {loss:.2f}, top-1 {accuracy}; {speed:.0f} images/s")
