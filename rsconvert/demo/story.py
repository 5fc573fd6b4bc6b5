"""The demo: an ordinary network on drawn images becomes switchable, is finetuned, compared and exported."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from rsconvert.checkpoint import save
from rsconvert.errors import CheckpointError
from rsconvert.evaluation import Evaluation, evaluate
from rsconvert.export import export_timm, replacing_folder
from rsconvert.models import create_model
from rsconvert.settings import FinetuneConfig
from rsconvert.study import plot_accuracy, save_figures
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.text import Table
from rsconvert.training import Row, finetune

__all__ = ["PATTERNS", "DemoResult", "draw", "run_demo", "write_images"]

_TRAINED = (96, 80, 64, 48, 32)
_EVALUATED = (96, 88, 80, 72, 64, 56, 48, 40, 32)
_ARCHITECTURE, _KWARGS = "resnet10t", {"channels": (24, 32, 64, 96), "stem_width": 16}

_MARK = ".rsconvert-demo"

_SIDE = 128
_PERIOD = (6.0, 10.0)  # pixels of the drawing; at half size this nears two pixels

Field = NDArray[np.float64]
Log = Callable[[str], None]

PATTERNS: dict[str, Callable[[Field, Field], Field]] = {
    "bricks": lambda u, v: np.maximum(np.sin(u / 2 + np.pi * (np.sin(v / 2) > 0)), np.sin(v)) - 0.5,
    "checks": lambda u, v: np.sin(u) * np.sin(v),
    "grid": lambda u, v: np.maximum(np.sin(u), np.sin(v)) - 0.5,
    "rings": lambda u, v: np.sin(np.hypot(u, v)),
    "stripes": lambda u, v: np.sin(u),
    "waves": lambda u, v: np.sin(u + 1.5 * np.sin(v / 2)),
}
"""Textures of the classes, which differ in detail alone: functions of two phases."""


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
        rows = []
        for r, new in self.switchable.resolutions.items():
            before, after = round(self.ordinary.resolutions[r].score, 1), round(new.score, 1)
            cost = f"{(new.multiply_adds or 0) / 1e6:.1f}"
            name = f"{r} (interpolated)" if new.interpolated else str(r)
            rows.append((name, cost, f"{before:.1f}", f"{after:.1f}", f"{after - before:+.1f}"))
        titles = ("resolution", "multiply-adds (M)", "ordinary, top-1 (%)", "switchable, top-1 (%)", "gain (points)")
        return Table(titles, rows).as_markdown()

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

    The folder is there when all of it is done; until then an earlier demo's stays.

    Args:
        images_per_class: drawings to train on; half as many to evaluate on.
        epochs: of the ordinary training and of the finetuning.
        log: is called with a line for each step.
    Raises:
        CheckpointError: the folder exists and ``force`` is not set, or can't be written.
    """
    say = log or (lambda _: None)
    started, target = time.perf_counter(), Path(folder)
    _check_free(target, force)
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(target) as place:
            (place / _MARK).write_text("rsconvert demo --force replaces a folder that holds this file.\n", "utf-8")
            before, after = _tell_story(place, images_per_class, epochs, seed, say)
            result = DemoResult(target, before, after, time.perf_counter() - started)
            (place / "table.md").write_text(result.table() + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{folder} can't be written ({error}); a folder with room is needed.") from error
    except KeyboardInterrupt as interrupt:
        interrupt.args = ()  # the state of its finetuning is gone
        raise
    return result


def _tell_story(
    place: Path, images_per_class: int, epochs: tuple[int, int], seed: int, say: Log
) -> tuple[Evaluation, Evaluation]:
    """Return what the ordinary and the switchable network reach; leave figure, checkpoint and export in ``place``."""
    images = place / "images"
    splits = {"train": images_per_class, "val": images_per_class // 2}
    say(f"drawing {len(PATTERNS)} classes, {splits['train']} training and {splits['val']} evaluation images each")
    rng = np.random.default_rng(seed)
    for split, count in splits.items():
        write_images(images, split, count, rng)
    ordinary = _train_ordinary(images, epochs[0], seed, say)
    switchable = _make_switchable(ordinary, images, place, epochs[1], seed, say)
    say(f"evaluating both networks at {len(_EVALUATED)} resolutions")
    before, after = (evaluate(net, str(images), _EVALUATED) for net in (ordinary, switchable))
    save(switchable, place / "switchable.safetensors")
    export_timm(switchable, 64, place / "plain-64")
    save_figures(plot_accuracy({"switchable": after, "ordinary": before}), place / "accuracy")
    return before, after


def _check_free(folder: Path, force: bool) -> None:
    """Refuse a place that is taken, unless by an earlier demo that may be replaced."""
    if folder.exists() and not force:
        raise CheckpointError(f"{folder} exists; a new folder is needed. Choose another by --output, or use --force.")
    if folder.exists() and not (folder / _MARK).is_file():
        raise CheckpointError(f"{folder} was not made by a demo and is left alone; a new folder is needed.")


def _train_ordinary(images: Path, epochs: int, seed: int, say: Log) -> SwitchableModel:
    """Train a small CNN at the native resolution alone: a network of one resolution is an ordinary one."""
    say(f"training an ordinary, narrow {_ARCHITECTURE} at {_TRAINED[0]} pixels, {epochs} epochs")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = create_model(_ARCHITECTURE, num_classes=len(PATTERNS), model_kwargs=_KWARGS)
    net = make_switchable(model, _TRAINED[:1])
    _finetune(net, images, None, epochs, 0.1, seed, say)
    return net


def _make_switchable(
    ordinary: SwitchableModel, images: Path, place: Path, epochs: int, seed: int, say: Log
) -> SwitchableModel:
    net = make_switchable(ordinary.extract(_TRAINED[0]), _TRAINED)
    assert net.report is not None
    count = len(net.report.batchnorms)
    say(f"converted {count} BatchNorms to {len(_TRAINED)} resolutions, every path equal to the source")
    say(f"finetuning all resolutions together, {epochs} epochs")
    _finetune(net, images, place / "run", epochs, 0.005, seed, say)
    return net


def _finetune(
    net: SwitchableModel, images: Path, output: Path | None, epochs: int, lr: float, seed: int, say: Log
) -> None:
    def report(row: Row) -> None:
        top1 = {key[5:]: value for key, value in row.items() if key.startswith("top1_") and key[5:].isdigit()}
        accuracy = ", ".join(f"{value:.1f} at {r}" for r, value in top1.items())
        loss, speed = f"mean cross entropy {row['classification'] / len(top1):.2f}", row["images_per_second"]
        say(f"  epoch {row['epoch']}/{epochs}: {loss}, top-1 (%) {accuracy}; {speed:.0f} images/s")

    settings = FinetuneConfig(epochs=epochs, batch_size=32, lr=lr, weight_decay=5e-4, seed=seed, warmup_epochs=1.0)
    finetune(net, str(images), output, settings, on_epoch=report)


def draw(pattern: str, rng: np.random.Generator) -> Image.Image:
    """Return one 128×128 RGB drawing of a pattern in random place, size, angle, period, contrast and colours."""
    y, x = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float64)
    centre, radii = rng.uniform(0.35, 0.65, 2) * _SIDE, rng.uniform(0.22, 0.42, 2) * _SIDE
    angle, period = rng.uniform(0, np.pi), rng.uniform(*_PERIOD)
    dx, dy = x - centre[0], y - centre[1]
    across, along = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
    inside = (dx / radii[0]) ** 2 + (dy / radii[1]) ** 2 < 1
    texture = PATTERNS[pattern](2 * np.pi * across / period, 2 * np.pi * along / period)
    colours, tint = rng.uniform(60, 195, (2, 3)), rng.uniform(20, 60) * rng.uniform(0.5, 1.0, 3)
    image = np.where(inside[..., None], colours[0] + tint * np.clip(3 * texture, -1, 1)[..., None], colours[1])
    coarse = Image.fromarray(rng.normal(0, 30, (5, 5)).astype(np.float32))
    clouds = np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), dtype=np.float64)
    image = image + clouds[..., None] + rng.normal(0, 6, image.shape)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def write_images(folder: Path, split: str, per_class: int, rng: np.random.Generator) -> None:
    """Write ``per_class`` drawings of every pattern below ``folder/split/PATTERN``."""
    for pattern in PATTERNS:
        place = folder / split / pattern
        place.mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            draw(pattern, rng).save(place / f"{i:04d}.png", compress_level=1)
