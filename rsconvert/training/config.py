"""FinetuneConfig: every setting of a finetuning run, checked."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_type_hints

from rsconvert.errors import ConfigError
from rsconvert.training.values import typed

__all__ = ["FinetuneConfig"]

_BASE_LR, _BASE_BATCH = 0.005, 32

_Rule = tuple[Callable[[Any], bool], str]
_AT_LEAST_1: _Rule = (lambda x: x >= 1, "at least 1")
_ABOVE_0: _Rule = (lambda x: 0 < x < math.inf, "a number above 0")
_FROM_0: _Rule = (lambda x: 0 <= x < math.inf, "0 or more")
_BELOW_1: _Rule = (lambda x: 0 <= x < 1, "a number from 0 to below 1")
_IN_0_1: _Rule = (lambda x: 0 < x < 1, "a number between 0 and 1")
_RULES: dict[str, _Rule] = {
    "epochs": _AT_LEAST_1,
    "batch_size": (lambda x: 1 <= x < 2**31, "1 to 2**31 - 1"),
    "grad_accum_steps": _AT_LEAST_1,
    "lr": _ABOVE_0,
    "alpha_lr": _ABOVE_0,
    "momentum": _BELOW_1,
    "weight_decay": _FROM_0,
    "layer_decay": (lambda x: 0 < x <= 1, "a number above 0, at most 1,"),
    "warmup_epochs": _FROM_0,
    "label_smoothing": _BELOW_1,
    "class_weights": (lambda x: all(0 < w < math.inf for w in x), "numbers above 0"),
    "crop_area": (lambda x: len(x) == 2 and 0 < x[0] <= x[1] <= 1, "a smallest and a largest share in (0, 1]"),
    "crop_aspect": (lambda x: len(x) == 2 and 0 < x[0] <= x[1] < math.inf, "a smallest and a largest number above 0"),
    "color_jitter": _ABOVE_0,
    "mixup": _FROM_0,
    "cutmix": _FROM_0,
    "view_sizes": (lambda x: min(x) >= 1, "sizes of at least 1 pixel"),
    "clip_grad": _ABOVE_0,
    "ema_decay": _IN_0_1,
    "seed": (lambda x: 0 <= x < 2**63, "0 to 2**63 - 1"),
    "workers": _FROM_0,
    "save_minutes": _ABOVE_0,
    "keep_states": _AT_LEAST_1,
}


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of ``finetune``. The defaults suit a pretrained network and a few epochs.

    ``lr`` is the rate for the summed loss of S views, whose gradient is S to 2S times that of one cross entropy: a
    rate known from ordinary finetuning is to be divided by S. None takes 0.005 · images per step / 32 / S.

    Attributes:
        epochs: passes over the training images.
        batch_size: images of a forward in each process; each gives S views.
        grad_accum_steps: forwards whose gradients are averaged for one step of the optimizer.
        lr: peak learning rate of the weights.
        alpha_lr: peak learning rate of the ensemble's scores, which hardly move at ``lr``.
        optimizer: ``sgd`` (Nesterov), ``momentum`` (the paper's SGD) or ``adamw``, of timm.
        momentum: of SGD; the first beta of AdamW.
        weight_decay: of convolutions and linear layers.
        decay_all: weight decay on BatchNorm, biases and alpha too, as in the paper's release.
        layer_decay: factor of the rate from each layer to the one before it, by timm's order of layers; None has none.
        schedule: ``cosine``, ``poly`` (of power 1: a straight line to 0) or ``constant``, per step.
        warmup_epochs: length of the linear warm-up from 0, within ``epochs``; may be a fraction.
        distill: which loss, see ``mred_loss``; ``none`` is parallel training.
        labels: ``data``; ``none``: images alone, the network as it starts, or ``teacher``, teaches; alpha rests.
        teacher: a model or checkpoint that takes the ensemble's place as a teacher; None has none.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: one weight of the cross entropy per output, above 0; each forward's mean is by its own labels.
        class_map: file that gives each class of the data its output, where the network has more of them.
        train: ``all``; ``bn``: the BN sets but the native one; ``head``: the classifier. alpha learns with each.
        crop: one ``shared`` crop for all views of an image, or one ``per-view``.
        flip: one ``shared`` flip, one ``per-view``, or ``off``.
        crop_area: smallest and largest share of the image in a crop; the paper trains from scratch with 0.08 to 1.
        crop_aspect: smallest and largest width over height of a crop.
        color_jitter: strength of random brightness, contrast and saturation, once per image; None has none.
        rand_augment: timm's RandAugment, such as ``rand-m9-mstd0.5``, drawn once per image; None has none.
        mixup: alpha of timm's mixup, alike for all views; 0 has none.
        cutmix: alpha of timm's cutmix, alike for all views; 0 has none.
        view_sizes: sizes of the S views in pixels, when they are not the resolutions (RS-Nets, Table 6).
        clip_grad: largest norm of the gradient; None does not clip.
        ema_decay: decay per step of a moving average of the network, which is then evaluated and saved; None has none.
        best: ``mean``: the best epoch is that of the highest mean top-1; ``native``: of the highest native top-1.
        amp: ``bf16``, ``fp16`` or ``off``; None takes bf16 on a GPU that has it, ``off`` elsewhere.
        channels_last: memory format of the network, as a rule the faster one; False is contiguous.
        compile: torch.compile's mode for each path, ``off`` without; ``reduce-overhead`` uses CUDA graphs.
        low_memory: the same gradients with the memory of the largest view alone, for about a fifth more time.
        grad_checkpointing: the model's own activation checkpointing, by timm.
        sync_bn: BatchNorm statistics over all processes; else each has its own, averaged at the end of an epoch.
        deterministic: only algorithms that repeat to the bit, also on a GPU, where they are slower.
        seed: of the order, the crops, dropout.
        workers: processes that read images, for each training process.
        device: such as ``cuda``; None takes a GPU if there is one.
        data_root: where a timm data-set string finds its files.
        save_minutes: minutes between two states of the run in its folder, beside the one after each epoch.
        keep_states: states that stay in the folder.
        log_dir: folder for TensorBoard; None writes none.
    Raises:
        ConfigError: a value is of another type or out of range, or has no effect beside another.
    """

    epochs: int = 10
    batch_size: int = 32
    grad_accum_steps: int = 1
    lr: float | None = None
    alpha_lr: float = 0.1
    optimizer: Literal["sgd", "momentum", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_all: bool = False
    layer_decay: float | None = None
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warmup_epochs: float = 0.5
    distill: Literal["full", "vanilla", "top-down", "largest", "none"] = "full"
    labels: Literal["data", "none"] = "data"
    teacher: str | None = None
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    class_map: str | None = None
    train: Literal["all", "bn", "head"] = "all"
    crop: Literal["shared", "per-view"] = "shared"
    flip: Literal["shared", "per-view", "off"] = "shared"
    crop_area: tuple[float, ...] = (0.35, 1.0)
    crop_aspect: tuple[float, ...] = (3 / 4, 4 / 3)
    color_jitter: float | None = None
    rand_augment: str | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    view_sizes: tuple[int, ...] | None = None
    clip_grad: float | None = None
    ema_decay: float | None = None
    best: Literal["mean", "native"] = "mean"
    amp: Literal["bf16", "fp16", "off"] | None = None
    channels_last: bool = True
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    low_memory: bool = False
    grad_checkpointing: bool = False
    sync_bn: bool = False
    deterministic: bool = False
    seed: int = 0
    workers: int = 2
    device: str | None = None
    data_root: str | None = None
    save_minutes: float = 10.0
    keep_states: int = 2
    log_dir: str | None = None

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):
            value = typed(item.name, getattr(self, item.name), hints[item.name])
            object.__setattr__(self, item.name, value)
            if value is not None and item.name in _RULES:
                _check(item.name, value, _RULES[item.name])
        below = (lambda x: x < self.epochs, f"less than the {self.epochs} epochs")
        _check("warmup_epochs", self.warmup_epochs, below)
        if self.optimizer == "sgd":
            _check("momentum", self.momentum, (lambda x: x > 0, "a number above 0 for sgd, which is Nesterov's,"))
        self._check_teaching()

    def _check_teaching(self) -> None:
        """Refuse what would have no effect beside the teacher of p_0."""
        taught = self.teacher is not None or self.labels == "none"
        if taught and self.distill not in ("full", "vanilla"):
            raise ConfigError(
                f"distill is {self.distill}, in which no teacher beside the views has a part; full or vanilla is "
                "accepted with labels none or a teacher. Change it."
            )
        if self.labels == "none":
            for name in ("label_smoothing", "class_weights", "mixup", "cutmix"):
                if getattr(self, name):
                    raise ConfigError(f"{name} has no effect with labels none. Leave it out.")

    def peak_lr(self, views: int, processes: int = 1) -> float:
        """Return the rate in force for a network of S views."""
        images = self.batch_size * self.grad_accum_steps * processes
        return self.lr if self.lr is not None else _BASE_LR * images / _BASE_BATCH / views


def _check(name: str, value: object, rule: _Rule) -> None:
    good, accepted = rule
    if not good(value):
        raise ConfigError(f"{name} is {value}; {accepted} is accepted. Change it.")
