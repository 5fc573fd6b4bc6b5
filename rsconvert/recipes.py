"""Recipes: named settings, and the configuration made of one, a file and single settings; torch is not needed."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rsconvert.errors import ConfigError, first_line
from rsconvert.settings import FinetuneConfig

__all__ = ["RECIPES", "build_config"]

# The training of the paper's release, from scratch on ImageNet: rates for the summed loss of 256 images.
_PAPER: dict[str, Any] = {
    "batch_size": 256,
    "optimizer": "momentum",
    "momentum": 0.9,
    "decay_all": True,
    "schedule": "cosine",
    "warmup_epochs": 0.0,
    "crop_area": (0.08, 1.0),
    "native_weight": 1.0,
    "start_share": 0.0,
    "probe_epochs": 0,
    "crop_aspect": (3 / 4, 4 / 3),
    "flip": "per-view",
    "best": "native",
}
RECIPES: dict[str, dict[str, Any]] = {
    "finetune": {},
    "paper-resnet": {**_PAPER, "epochs": 120, "lr": 0.1, "alpha_lr": 0.1, "weight_decay": 1e-4},
    # Of the paper's text. The release decays weights alone, by 5e-5, and resizes views by the nearest pixel.
    "paper-lq-resnet": {
        **_PAPER,
        "epochs": 120,
        "lr": 0.1,
        "alpha_lr": 0.1,
        "weight_decay": 1e-4,
        "optimizer": "sgd",
        "schedule": "step",
        "lr_steps": (30, 60, 85, 95, 105),
        "bits": "2/32",
    },
    "paper-mobilenetv2": {**_PAPER, "epochs": 150, "lr": 0.05, "alpha_lr": 0.05, "weight_decay": 4e-5},
}


def build_config(
    file: str | Path | None = None, settings: Mapping[str, Any] | None = None, recipe: str | None = None
) -> FinetuneConfig:
    """Return the configuration of a recipe, overridden by a TOML file, overridden by single settings.

    Strings among the settings are read as the field's type: ``"224,160"`` for a tuple, ``"none"`` for an optional one.

    Raises:
        ConfigError: there is no such recipe; the file can't be read; a name is unknown; a value does not fit; the
            teacher of the file would run code or be fetched.
    """
    if recipe is not None and recipe not in RECIPES:
        raise ConfigError(f"recipe is {recipe!r}; {', '.join(RECIPES)} are accepted.")
    values = {**RECIPES[recipe or "finetune"], **_read_toml(file), **(settings or {})}
    known = [item.name for item in fields(FinetuneConfig)]
    if unknown := [name for name in values if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=3)
        accepted = f"near ones are {', '.join(near)}" if near else f"known are {', '.join(known)}"
        raise ConfigError(f"setting {unknown[0]} is unknown; {accepted}.")
    return FinetuneConfig(**values)


def _read_toml(file: str | Path | None) -> dict[str, Any]:
    try:
        held = {} if file is None else tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"config {file} can't be read ({first_line(error)}); a TOML file of settings is needed."
        ) from error
    _check_teacher_of_file(file, held.get("teacher"))
    return held


def _check_teacher_of_file(file: str | Path | None, teacher: object) -> None:
    """Refuse a teacher out of a file that would run code or be fetched: the caller alone may name it."""
    if isinstance(teacher, str) and teacher != "none" and (".py:" in teacher or not Path(teacher).exists()):
        raise ConfigError(
            f"config {file} names the teacher {teacher!r}; a file may name a checkpoint or a run folder that exists, "
            "no function, and no model to be downloaded. Give it by --teacher."
        )
