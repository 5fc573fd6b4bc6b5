"""Where settings come from: a named recipe, a file, single settings."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rsconvert.errors import ConfigError
from rsconvert.training.config import FinetuneConfig

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
    "crop_aspect": (3 / 4, 4 / 3),
    "flip": "per-view",
    "best": "native",
}
RECIPES: dict[str, dict[str, Any]] = {
    "finetune": {},
    "paper-resnet": {**_PAPER, "epochs": 120, "lr": 0.1, "alpha_lr": 0.1, "weight_decay": 1e-4},
    "paper-mobilenetv2": {**_PAPER, "epochs": 150, "lr": 0.05, "alpha_lr": 0.05, "weight_decay": 4e-5},
}


def build_config(
    file: str | Path | None = None, settings: Mapping[str, Any] | None = None, recipe: str | None = None
) -> FinetuneConfig:
    """Return the configuration of a recipe, overridden by a TOML file, overridden by single settings.

    Strings among the settings are read as the field's type: ``"224,160"`` for a tuple, ``"none"`` for an optional one.

    Raises:
        ConfigError: there is no such recipe; the file can't be read; a key is unknown; a value does not fit.
    """
    if recipe is not None and recipe not in RECIPES:
        raise ConfigError(f"recipe is {recipe!r}; {', '.join(RECIPES)} are accepted. Choose one of them.")
    values = {**RECIPES[recipe or "finetune"], **_read_toml(file), **(settings or {})}
    known = [item.name for item in fields(FinetuneConfig)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3)
            accepted = f"near ones are {', '.join(near)}" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"setting {key} is unknown; {accepted}. Correct the name.")
    return FinetuneConfig(**values)


def _read_toml(file: str | Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"config {file} can't be read ({error}); a TOML file of settings is needed. Correct it."
        ) from error
