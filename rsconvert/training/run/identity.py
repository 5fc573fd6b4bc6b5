"""What makes a run the same run: the settings, the images, the network, the machines."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rsconvert.data import Samples
from rsconvert.errors import ConfigError
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel

__all__ = ["FREE_SETTINGS", "check_same_run", "data_identity"]

# They change neither a number of the result nor what a state holds.
FREE_SETTINGS = {"workers", "save_minutes", "keep_states", "log_dir", "data_root"}
# With others the tensors of a state have no place.
_FIXED = {"optimizer", "train", "labels", "layer_decay", "decay_all", "ema_decay", "resolutions", "processes"}
_REMEDIES = {
    "starting_network": "Give the checkpoint that the run started from",
    "data": "Give the images that the run started with",
}


def data_identity(
    net: SwitchableModel, samples: tuple[Samples, Samples], outputs: Sequence[int] | None
) -> dict[str, Any]:
    """Return what is to be the same of the images: their number, their classes, how the network sees them."""
    train, val = samples
    named = json.dumps([train.classes, outputs])
    short = hashlib.blake2b(named.encode(), digest_size=4).hexdigest()
    words = f"{len(train)} train and {len(val)} val images, {len(train.classes or ())} classes ({short})"
    return {"data": words, **asdict(net.source.preprocessing)}


def check_same_run(saved: Mapping[str, Any], config: FinetuneConfig, facts: Mapping[str, Any], *, force: bool) -> None:
    """Compare the settings and facts of a state with those of the run that is to go on from it.

    Raises:
        ConfigError: some differ and ``force`` is not set, or some differ for which the state has no place.
    """
    now = {**asdict(config), **facts}
    differing = [name for name in now if name not in FREE_SETTINGS and _plain(saved.get(name)) != _plain(now[name])]
    told = ", ".join(f"{name} was {_short(saved.get(name))} and is {_short(now[name])}" for name in differing)
    if fixed := [name for name in differing if name in _FIXED]:
        raise ConfigError(
            f"the run to resume differs: {told}; its state fits the same {', '.join(fixed)} alone. "
            "Give the same again, or start another run."
        )
    if differing and not force:
        remedy = next((text for name, text in _REMEDIES.items() if name in differing), "Give them again")
        raise ConfigError(
            f"the run to resume differs: {told}; the same are needed for the same result. "
            f"{remedy}, or go on all the same by --force."
        )


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
