"""FinetuneConfig: every setting of a finetuning run, checked."""

import difflib
import math
import operator
import tomllib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rsconvert.errors import ConfigError

__all__ = ["FinetuneConfig", "build_config"]

_BASE_LR, _BASE_BATCH = 0.005, 32

_Rule = tuple[Callable[[Any], bool], str]
_AT_LEAST_1: _Rule = (lambda x: x >= 1, "at least 1")
_ABOVE_0: _Rule = (lambda x: 0 < x < math.inf, "a number above 0")
_FROM_0: _Rule = (lambda x: 0 <= x < math.inf, "0 or more")
_BELOW_1: _Rule = (lambda x: 0 <= x < 1, "a number from 0 to below 1")
_RULES: dict[str, _Rule] = {
    "epochs": _AT_LEAST_1,
    "batch_size": (lambda x: 1 <= x < 2**31, "1 to 2**31 - 1"),
    "lr": _ABOVE_0,
    "alpha_lr": _ABOVE_0,
    "momentum": _BELOW_1,
    "weight_decay": _FROM_0,
    "warmup_epochs": _FROM_0,
    "label_smoothing": _BELOW_1,
    "class_weights": (lambda x: all(0 <= w < math.inf for w in x) and any(x), "numbers of 0 or more, not all 0,"),
    "crop_area": (lambda x: len(x) == 2 and 0 < x[0] <= x[1] <= 1, "a smallest and a largest share in (0, 1]"),
    "crop_aspect": (lambda x: len(x) == 2 and 0 < x[0] <= x[1] < math.inf, "a smallest and a largest number above 0"),
    "view_sizes": (lambda x: min(x) >= 1, "sizes of at least 1 pixel"),
    "clip_grad": _ABOVE_0,
    "seed": (lambda x: 0 <= x < 2**63, "0 to 2**63 - 1"),
    "workers": _FROM_0,
}


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of ``finetune``. The defaults suit a pretrained network and a few epochs.

    ``lr`` is the rate for the summed loss of S views, whose gradient is S to 2S times that of one cross entropy: a
    rate known from ordinary finetuning is to be divided by S. None takes 0.005 · batch_size / 32 / S.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step; each gives S views.
        lr: peak learning rate of the weights.
        alpha_lr: peak learning rate of the ensemble's scores, which hardly move at ``lr``.
        optimizer: ``sgd`` (Nesterov), ``momentum`` (the paper's SGD) or ``adamw``, of timm.
        momentum: of SGD; the first beta of AdamW.
        weight_decay: of convolutions and linear layers.
        decay_all: weight decay on BatchNorm, biases and alpha too, as in the paper's release.
        schedule: ``cosine``, ``poly`` (of power 1: a straight line to 0) or ``constant``, per step.
        warmup_epochs: length of the linear warm-up from 0, within ``epochs``; may be a fraction.
        distill: which loss, see ``mred_loss``; ``none`` is parallel training.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: one weight of the cross entropy per class.
        train: ``all``; ``bn``: the BN sets but the native one; ``head``: the classifier. alpha always learns.
        crop: one ``shared`` crop for all views of an image, or one ``per-view``.
        flip: one ``shared`` flip, one ``per-view``, or ``off``.
        crop_area: smallest and largest share of the image in a crop; the paper trains from scratch with 0.08 to 1.
        crop_aspect: smallest and largest width over height of a crop.
        view_sizes: sizes of the S views in pixels, when they are not the resolutions (RS-Nets, Table 6).
        clip_grad: largest norm of the gradient; None does not clip.
        amp: ``bf16``, ``fp16`` or ``off``; None takes bf16 on a GPU that has it, ``off`` elsewhere.
        channels_last: memory format of the network, as a rule the faster one; False is contiguous.
        seed: of the order, the crops, dropout.
        workers: processes that read images.
        device: such as ``cuda``; None takes a GPU if there is one.
        data_root: where a timm data-set string finds its files.
    Raises:
        ConfigError: a value is of another type or out of range.
    """

    epochs: int = 10
    batch_size: int = 32
    lr: float | None = None
    alpha_lr: float = 0.1
    optimizer: Literal["sgd", "momentum", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_all: bool = False
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warmup_epochs: float = 0.5
    distill: Literal["full", "vanilla", "top-down", "largest", "none"] = "full"
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    train: Literal["all", "bn", "head"] = "all"
    crop: Literal["shared", "per-view"] = "shared"
    flip: Literal["shared", "per-view", "off"] = "shared"
    crop_area: tuple[float, ...] = (0.35, 1.0)
    crop_aspect: tuple[float, ...] = (3 / 4, 4 / 3)
    view_sizes: tuple[int, ...] | None = None
    clip_grad: float | None = None
    amp: Literal["bf16", "fp16", "off"] | None = None
    channels_last: bool = True
    seed: int = 0
    workers: int = 2
    device: str | None = None
    data_root: str | None = None

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):
            value = _typed(item.name, getattr(self, item.name), hints[item.name])
            object.__setattr__(self, item.name, value)
            if value is not None and item.name in _RULES:
                _check(item.name, value, _RULES[item.name])
        below = (lambda x: x < self.epochs, f"less than the {self.epochs} epochs")
        _check("warmup_epochs", self.warmup_epochs, below)
        if self.optimizer == "sgd":
            _check("momentum", self.momentum, (lambda x: x > 0, "a number above 0 for sgd, which is Nesterov's,"))

    def peak_lr(self, views: int) -> float:
        """Return the rate in force for a network of S views."""
        return self.lr if self.lr is not None else _BASE_LR * self.batch_size / _BASE_BATCH / views


def build_config(file: str | Path | None = None, settings: Mapping[str, Any] | None = None) -> FinetuneConfig:
    """Return the configuration of a TOML file, overridden by single settings.

    Strings among the settings are read as the field's type: ``"224,160"`` for a tuple, ``"none"`` for an optional one.

    Raises:
        ConfigError: the file can't be read; a key is unknown; a value does not fit.
    """
    values = {**_read_toml(file), **(settings or {})}
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


def _check(name: str, value: object, rule: _Rule) -> None:
    good, accepted = rule
    if not good(value):
        raise ConfigError(f"{name} is {value}; {accepted} is accepted. Change it.")


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Return a value in its field's type; text is parsed."""
    try:
        return _parse(value, hint)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {value!r}; {_describe(hint)} is accepted. Change it.") from None


def _parse(value: Any, hint: Any) -> Any:
    plain = _plain(hint)
    if plain is not hint and (value is None or (value == "none" and "none" not in get_args(plain))):
        return None
    if get_origin(plain) is Literal:
        if value not in get_args(plain):
            raise ValueError
        return value
    if get_origin(plain) is tuple:
        return _items(value, get_args(plain)[0])
    return _truth(value) if plain is bool else _scalar(value, plain)


def _items(value: Any, kind: Any) -> tuple[Any, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not items:
        raise ValueError
    return tuple(_scalar(item, kind) for item in items)


def _truth(value: Any) -> bool:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _scalar(value: Any, kind: Any) -> Any:
    if isinstance(value, bool) or (kind is str and not isinstance(value, str)):
        raise TypeError
    # Other than int(), index() refuses a fraction.
    return operator.index(value) if kind is int and not isinstance(value, str) else kind(value)


def _plain(hint: Any) -> Any:
    """Return what an optional type may be besides None; any other type as it is."""
    arguments = get_args(hint)
    if isinstance(hint, types.UnionType) or type(None) in arguments:
        return next(a for a in arguments if a is not type(None))
    return hint


def _describe(hint: Any) -> str:
    plain = _plain(hint)
    if plain is not hint:
        return f"{_describe(plain)} or none"
    if get_origin(hint) is Literal:
        return ", ".join(get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list of {'whole numbers' if get_args(hint)[0] is int else 'numbers'}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]
