"""FinetuneConfig: every setting of a finetuning run, checked."""

import difflib
import math
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rsconvert.errors import ConfigError

__all__ = ["FinetuneConfig", "build_config"]

_BASE_LR, _BASE_BATCH = 0.01, 32


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of ``finetune``. The defaults suit a pretrained network and a few epochs.

    ``lr`` is the rate for the summed loss of S views, whose gradient is S to 2S times that of one cross entropy: a rate known
    from ordinary finetuning is to be divided by S. None takes 0.01 · batch_size / 32 / S.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step; each gives S views.
        lr: peak learning rate of the weights.
        alpha_lr: peak learning rate of the ensemble's scores, which hardly move at ``lr``.
        optimizer: ``sgd`` (Nesterov), ``momentum`` (the paper's SGD) or ``adamw``, of timm.
        momentum: of SGD; the first beta of AdamW.
        weight_decay: of convolutions and linear layers.
        decay_all: weight decay on BatchNorm, biases and alpha too, as in the paper's release.
        schedule: ``cosine``, ``poly`` or ``constant``, per step.
        warmup_epochs: linear warm-up; may be a fraction.
        distill: which loss, see ``mred_loss``; ``none`` is parallel training.
        label_smoothing: share of the target spread over all classes.
        class_weights: one weight of the cross entropy per class.
        train: ``all``; ``bn``: the BN sets but the native one, and alpha; ``head``: the classifier and alpha.
        crop: one ``shared`` crop for all views of an image, or one ``per-view``.
        flip: one ``shared`` flip, one ``per-view``, or ``off``.
        crop_area: range of the crop's share of the image; the paper trains from scratch with 0.08 to 1.
        crop_aspect: range of the crop's aspect ratio.
        view_sizes: sizes of the S views in pixels, when they are not the resolutions (RS-Nets, Table 6).
        clip_grad: largest norm of the gradient; None does not clip.
        amp: ``bf16``, ``fp16`` or ``off``; None takes bf16 on a GPU that has it, ``off`` elsewhere.
        channels_last: memory format of the network, as a rule the faster one.
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
            object.__setattr__(self, item.name, _typed(item.name, getattr(self, item.name), hints[item.name]))
        for name in ("epochs", "batch_size"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("lr", "alpha_lr", "clip_grad"):
            value = getattr(self, name)
            _check(name, value, value is None or 0 < value < math.inf, "a number above 0")
        for name in ("weight_decay", "warmup_epochs", "workers"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) < math.inf, "0 or more")
        for name in ("momentum", "label_smoothing"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) < 1, "a number from 0 to below 1")
        _check("warmup_epochs", self.warmup_epochs, self.warmup_epochs < self.epochs, f"less than the {self.epochs} epochs")

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
            near = difflib.get_close_matches(key, known, n=3) or known
            raise ConfigError(f"setting {key} is unknown; near ones are {', '.join(near)}. Correct the name.")
    return FinetuneConfig(**values)


def _read_toml(file: str | Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"config {file} can't be read ({error}); a TOML file of settings is needed. Correct it.") from error


def _check(name: str, value: object, good: bool, accepted: str) -> None:
    if not good:
        raise ConfigError(f"{name} is {value}; {accepted} is accepted. Change it.")


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Return a value in its field's type; text is parsed."""
    try:
        return _parse(value, hint)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {value!r}; {_describe(hint)} is accepted. Change it.") from None


def _parse(value: Any, hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is types.UnionType or type(None) in arguments:
        plain = next(a for a in arguments if a is not type(None))
        return None if value is None or (value == "none" and "none" not in get_args(plain)) else _parse(value, plain)
    if origin is Literal:
        if value not in arguments:
            raise ValueError
        return value
    if origin is tuple:
        items: Sequence[Any] = value.split(",") if isinstance(value, str) else value
        return tuple(_parse(item, arguments[0]) for item in items)
    return _scalar(value, hint)


def _scalar(value: Any, kind: type) -> Any:
    if kind is bool:
        if value in (True, False):
            return bool(value)
        return {"true": True, "false": False}[value.lower()] if value.lower() in ("true", "false") else int("not a truth value")
    if isinstance(value, bool) or (kind is int and isinstance(value, float)):
        raise ValueError
    return kind(value)


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is types.UnionType or type(None) in arguments:
        return f"{_describe(next(a for a in arguments if a is not type(None)))} or none"
    if origin is Literal:
        return ", ".join(arguments)
    if origin is tuple:
        return f"a list of {_describe(arguments[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names[hint]
