"""The settings of a finetuning run: default, choices, limits and meaning of each, once; torch is not needed."""

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from rsconvert.errors import ConfigError
from rsconvert.text import plain

__all__ = ["FILLED", "Distillation", "FinetuneConfig", "Setting", "setting_help"]

_BASE_LR, _BASE_BATCH = 0.005, 32
# What follows from the network: few images spoil one that was trained and keeps its classifier.
_USUAL: dict[str, Any] = {"native_weight": 1.0, "crop_area": (0.35, 1.0), "start_share": 0.0}
_GENTLE: dict[str, Any] = {"native_weight": 4.0, "crop_area": (0.7, 1.0), "start_share": 0.3}
_PROBE_EPOCHS = 5
FILLED = ("lr", "probe_epochs", *_USUAL)


class _Rule(NamedTuple):
    holds: Callable[[Any], object]
    accepted: str


_AT_LEAST_1 = _Rule(lambda x: x >= 1, "at least 1")
_ABOVE_0 = _Rule(lambda x: 0 < x < math.inf, "a number above 0")
_FROM_0 = _Rule(lambda x: 0 <= x < math.inf, "0 or more")
_BELOW_1 = _Rule(lambda x: 0 <= x < 1, "a number from 0 to below 1")
_IN_0_1 = _Rule(lambda x: 0 < x < 1, "a number between 0 and 1")
_UP_TO_1 = _Rule(lambda x: 0 < x <= 1, "a number above 0, at most 1,")
_INT32 = _Rule(lambda x: 1 <= x < 2**31, "1 to 2**31 - 1")
_INT63 = _Rule(lambda x: 0 <= x < 2**63, "0 to 2**63 - 1")
_WEIGHTS = _Rule(lambda x: all(0 < weight < math.inf for weight in x), "numbers above 0")
_VIEWS = _Rule(lambda x: isinstance(x, str) or x >= 3, "all, sandwich or a whole number from 3")
_EPOCHS = _Rule(lambda x: min(x) >= 1 and list(x) == sorted(set(x)), "epochs from 1, in ascending order,")
_SIZES = _Rule(lambda x: min(x) >= 1, "sizes of at least 1 pixel")
_SHARES = _Rule(lambda x: len(x) == 2 and 0 < x[0] <= x[1] <= 1, "a smallest and a largest share in (0, 1]")
_BITS = _Rule(
    lambda x: re.fullmatch(r"[1-8]/([1-8]|32)", x, re.ASCII),
    "W/A, 1 to 8 bits for weights, 1 to 8 or 32 for activations, such as 2/32 or 2/2,",
)
_RATIOS = _Rule(lambda x: len(x) == 2 and 0 < x[0] <= x[1] < math.inf, "a smallest and a largest number above 0")

Distillation = Literal["full", "vanilla", "top-down", "largest", "none"]


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of ``finetune``. The defaults suit a pretrained network and a few epochs.

    ``lr`` is the rate for the summed loss of S views, whose gradient is S to 2S times that of one cross entropy: divide
    a rate known from ordinary finetuning by S. With ``views`` S is their number.

    Five settings are None by default and follow from the network, see ``filled``: they are gentle for one that was
    trained, keeps its classifier or has it fitted first, and learns as a whole.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per forward in each process; each image gives S views.
        grad_accum_steps: forwards whose gradients are averaged for one step of the optimizer.
        lr: peak rate for the summed loss of S views; by default 0.005 · images per step / 32 / S.
        probe_epochs: passes that fit the classifier alone to cached features first; by default 5 for trained weights.
        alpha_lr: peak learning rate of the ensemble's scores, which hardly move at ``lr``.
        optimizer: ``sgd`` (Nesterov), ``momentum`` (the paper's SGD) or ``adamw``, of timm.
        momentum: of SGD; the first beta of AdamW.
        weight_decay: of convolutions and linear layers.
        decay_all: weight decay on BatchNorm, biases and alpha too, as in the paper's release.
        layer_decay: factor of the learning rate from each layer to the one before it, in timm's order of layers.
        schedule: ``cosine``, ``poly`` (a straight line to 0, or a power) or ``constant``, per step; or ``step``.
        lr_steps: epochs after which the schedule ``step`` divides the rate by 10: 30,60,85.
        poly_power: of the schedule ``poly``; 0.9 is usual in segmentation.
        warmup_epochs: length of the linear warm-up from 0, within ``epochs``; may be a fraction.
        distill: which loss, see ``mred_loss``; ``none`` is parallel training.
        labels: ``data``, or ``none``: without labels, ``teacher`` or the network as it starts teaches; alpha is frozen.
        teacher: a model, checkpoint or run folder that teaches in the ensemble's place.
        native_weight: weight of the native view's cross entropy, where another's is 1; by default 1, trained 4.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: one weight of the cross entropy per output, above 0; each forward's mean is by its own labels.
        class_map: file that gives each class of the data its output, where the network has more of them.
        bits: ``W/A``, the bits of weights and activations of convolutions: 2/32, 2/2; by default the network's own.
        activation_bases: of quantized activations: ``private`` for each resolution, or ``shared``, the default.
        keep_float: names of convolutions that are not quantized, in place of the first one and of the classifier.
        label_offset: of segmentation, subtracted from the values of masks; what becomes negative is ignored.
        class_names: of segmentation, a file with the name of each class, one a line.
        resize: of segmentation, how whole images are evaluated: ``squash``, ``short-side`` or ``pad``.
        loss_grid: of segmentation, that of the loss: of the ``largest`` input, or ``native``, of each view's logits.
        bn_statistics: ``batch`` moves BatchNorm statistics; ``frozen`` keeps them, so sets differ in γ and β alone.
        encoder_lr: factor of the learning rate of what is named encoder or backbone in the network.
        train: what learns with alpha: ``all``, ``bn`` (all BN sets but the native one) or ``head`` (every classifier).
        crop: one ``shared`` crop for all views of an image, or one ``per-view``.
        flip: one ``shared`` flip, one ``per-view``, or ``off``.
        crop_area: smallest and largest share of the image in a crop; by default 0.35 to 1, trained 0.7 to 1.
        crop_aspect: smallest and largest width over height of a crop.
        color_jitter: strength of random brightness, contrast and saturation, once per image.
        rand_augment: timm's RandAugment, such as ``rand-m9-mstd0.5``, drawn once per image.
        mixup: alpha of timm's mixup, the same for all views; 0 is off.
        cutmix: alpha of timm's cutmix, the same for all views; 0 is off.
        views: how many a forward has: ``all``, or N: the largest, the smallest and random others; ``sandwich`` is 3.
        view_sizes: sizes of the S views in pixels, when they are not the resolutions (RS-Nets, Table 6).
        clip_grad: largest norm of the gradient.
        ema_decay: decay per step of a moving average of the network, which is then evaluated and saved.
        start_share: share of the starting weights in what is saved (WiSE-FT); by default 0, 0.3 for trained weights.
        best: the best epoch has the highest top-1: ``mean`` over the resolutions, or ``native``.
        patience: epochs without a better best after which the run stops early; the schedule is still that of all.
        amp: mixed precision; by default bf16 on a GPU that has it, else off.
        channels_last: memory format of the network, as a rule the faster one; false is contiguous.
        compile: mode of torch.compile for each path; ``reduce-overhead`` uses CUDA graphs.
        low_memory: the same gradients with the memory of the largest view alone, for about a fifth more time.
        grad_checkpointing: the model's own activation checkpointing, by timm.
        sync_bn: BatchNorm statistics over all processes; else each has its own, averaged at the end of an epoch.
        deterministic: only algorithms that repeat bit for bit, also on a GPU, where they are slower.
        seed: of the order, the crops, dropout.
        workers: processes that read images, for each training process.
        device: such as ``cpu`` or ``cuda``; by default a GPU if there is one.
        split: of a plain folder of classes, the share that is trained on; the rest is val, chosen by the files' names.
        skip_broken: images that can't be read and may be left out, each named; all are decoded once more before.
        data_root: where a timm data-set string finds its files.
        save_minutes: minutes between two states of the run in its folder, in addition to the one after each epoch.
        keep_states: how many states stay in the folder.
        log_dir: folder for TensorBoard.
    Raises:
        ConfigError: a value has the wrong type or is out of range, or has no effect together with another.
    """

    epochs: Annotated[int, _AT_LEAST_1] = 10
    batch_size: Annotated[int, _INT32] = 32
    grad_accum_steps: Annotated[int, _AT_LEAST_1] = 1
    lr: Annotated[float | None, _ABOVE_0] = None
    probe_epochs: Annotated[int | None, _FROM_0] = None
    alpha_lr: Annotated[float, _ABOVE_0] = 0.1
    optimizer: Literal["sgd", "momentum", "adamw"] = "sgd"
    momentum: Annotated[float, _BELOW_1] = 0.9
    weight_decay: Annotated[float, _FROM_0] = 1e-4
    decay_all: bool = False
    layer_decay: Annotated[float | None, _UP_TO_1] = None
    schedule: Literal["cosine", "poly", "constant", "step"] = "cosine"
    lr_steps: Annotated[tuple[int, ...] | None, _EPOCHS] = None
    poly_power: Annotated[float, _ABOVE_0] = 1.0
    warmup_epochs: Annotated[float, _FROM_0] = 0.5
    distill: Distillation = "full"
    labels: Literal["data", "none"] = "data"
    teacher: str | None = None
    native_weight: Annotated[float | None, _ABOVE_0] = None
    label_smoothing: Annotated[float, _BELOW_1] = 0.0
    class_weights: Annotated[tuple[float, ...] | None, _WEIGHTS] = None
    class_map: str | None = None
    bits: Annotated[str | None, _BITS] = None
    activation_bases: Literal["shared", "private"] | None = None
    keep_float: tuple[str, ...] | None = None
    label_offset: int = 0
    class_names: str | None = None
    resize: Literal["squash", "short-side", "pad"] = "squash"
    loss_grid: Literal["largest", "native"] = "largest"
    bn_statistics: Literal["batch", "frozen"] = "batch"
    encoder_lr: Annotated[float | None, _ABOVE_0] = None
    train: Literal["all", "bn", "head"] = "all"
    crop: Literal["shared", "per-view"] = "shared"
    flip: Literal["shared", "per-view", "off"] = "shared"
    crop_area: Annotated[tuple[float, ...] | None, _SHARES] = None
    crop_aspect: Annotated[tuple[float, ...], _RATIOS] = (3 / 4, 4 / 3)
    color_jitter: Annotated[float | None, _ABOVE_0] = None
    rand_augment: str | None = None
    mixup: Annotated[float, _FROM_0] = 0.0
    cutmix: Annotated[float, _FROM_0] = 0.0
    views: Annotated[Literal["all", "sandwich"] | int, _VIEWS] = "all"
    view_sizes: Annotated[tuple[int, ...] | None, _SIZES] = None
    clip_grad: Annotated[float | None, _ABOVE_0] = None
    ema_decay: Annotated[float | None, _IN_0_1] = None
    start_share: Annotated[float | None, _BELOW_1] = None
    best: Literal["mean", "native"] = "mean"
    patience: Annotated[int | None, _AT_LEAST_1] = None
    amp: Literal["bf16", "fp16", "off"] | None = None
    channels_last: bool = True
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    low_memory: bool = False
    grad_checkpointing: bool = False
    sync_bn: bool = False
    deterministic: bool = False
    seed: Annotated[int, _INT63] = 0
    workers: Annotated[int, _FROM_0] = 2
    device: str | None = None
    split: Annotated[float | None, _IN_0_1] = None
    skip_broken: Annotated[int, _FROM_0] = 0
    data_root: str | None = None
    save_minutes: Annotated[float, _ABOVE_0] = 10.0
    keep_states: Annotated[int, _AT_LEAST_1] = 2
    log_dir: str | None = None

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for name, hint in hints.items():
            value = _typed(name, getattr(self, name), get_args(hint)[0] if get_origin(hint) is Annotated else hint)
            object.__setattr__(self, name, value)
            for rule in getattr(hint, "__metadata__", ()) if value is not None else ():
                _check(name, value, rule)
        in_epochs = _Rule(lambda x: x < self.epochs, f"less than the {self.epochs} epochs")
        _check("warmup_epochs", self.warmup_epochs, in_epochs)
        if self.patience is not None:
            later = _Rule(lambda x: x < self.epochs - 1, f"fewer than the {self.epochs - 1} epochs after the first")
            _check("patience", self.patience, later)
        if self.optimizer == "sgd":
            _check("momentum", self.momentum, _Rule(lambda x: x > 0, "a number above 0 for sgd, which is Nesterov's,"))
        if self.view_sizes is not None and self.views != "all":
            raise ConfigError(
                f"views is {self.views} with view_sizes, which are no resolutions; all is accepted. Leave one out."
            )
        if self.poly_power != 1 and self.schedule != "poly":
            raise ConfigError(f"poly_power is {self.poly_power} with the schedule {self.schedule}; poly has a power.")
        if self.encoder_lr is not None and self.layer_decay is not None:
            raise ConfigError("encoder_lr and layer_decay both scale rates; one of them is accepted. Leave one out.")
        self._check_teaching()
        self._check_schedule()
        self._check_bits()
        if self.probe_epochs and (self.train == "bn" or self.labels == "none"):
            what = "train bn, which leaves the classifier alone" if self.train == "bn" else "labels none"
            raise ConfigError(f"probe_epochs is {self.probe_epochs} and has no effect with {what}. Leave it out.")

    def _check_teaching(self) -> None:
        """Refuse what has no effect with the teacher of p_0."""
        taught = self.teacher is not None or self.labels == "none"
        if taught and self.distill not in ("full", "vanilla"):
            raise ConfigError(
                f"distill is {self.distill}, in which only the views teach; full or vanilla is accepted with labels "
                "none or a teacher."
            )
        for name in ("label_smoothing", "class_weights", "mixup", "cutmix", "native_weight"):
            if self.labels == "none" and getattr(self, name) not in (None, 0, 1 if name == "native_weight" else 0):
                raise ConfigError(f"{name} has no effect with labels none. Leave it out.")

    def _check_schedule(self) -> None:
        if (self.schedule == "step") != (self.lr_steps is not None):
            raise ConfigError(
                f"schedule is {self.schedule} and lr_steps is {plain(self.lr_steps or 'none')}; the schedule step and "
                "the epochs of its falls go together. Give both, or none."
            )
        if self.lr_steps is not None and self.lr_steps[-1] >= self.epochs:
            raise ConfigError(
                f"lr_steps is {plain(self.lr_steps)}; numbers below {self.epochs}, the epochs of the run, are accepted."
            )

    def _check_bits(self) -> None:
        """Refuse what says how to quantize where nothing is quantized."""
        if self.bits is None and self.keep_float is not None:
            raise ConfigError("keep_float has no effect without bits. Give bits, or leave it out.")
        if self.activation_bases is not None and (self.bits is None or self.bits.endswith("/32")):
            raise ConfigError(
                f"activation_bases is {self.activation_bases} with bits {self.bits or 'none'}, which leave activations "
                "float. Give bits such as 2/2, or leave it out."
            )

    def filled(self, *, gentle: bool, probe: bool = False, views: int = 1, processes: int = 1) -> "FinetuneConfig":
        """Return the settings with numbers in place of the None of ``lr`` and of what follows from the network.

        Args:
            gentle: whether the network was trained and learns as a whole: it has much to lose.
            probe: whether its classifier is fitted first.
            views: S of the summed loss.
        """
        given = {name: getattr(self, name) for name in FILLED if name != "lr"}
        chosen = {name: value for name, value in given.items() if value is not None}
        defaults = {**(_GENTLE if gentle else _USUAL), "probe_epochs": _PROBE_EPOCHS if probe else 0}
        if self.labels == "none":  # the native view's weight counts labels
            defaults["native_weight"] = 1.0
        return replace(self, **{**defaults, **chosen, "lr": self.peak_lr(views, processes)})

    def drawn_views(self, resolutions: int) -> int:
        """Return how many views a forward has, of a network of S resolutions.

        Raises:
            ConfigError: ``views`` are more than that.
        """
        if self.views == "all":
            return resolutions
        asked = 3 if self.views == "sandwich" else self.views
        if asked > resolutions:
            accepted = f"all, sandwich or 3 to {resolutions}" if resolutions >= 3 else "all"
            raise ConfigError(
                f"views is {self.views}, and the number of resolutions {resolutions}; {accepted} is accepted."
            )
        return asked

    def peak_lr(self, views: int, processes: int = 1) -> float:
        """Return the learning rate for the loss of that many views: as set, or the usual one."""
        images = self.batch_size * self.grad_accum_steps * processes
        return self.lr if self.lr is not None else _BASE_LR * images / _BASE_BATCH / views


class Setting(NamedTuple):
    """A setting as people read of it: its default, its choices if it has a list of them, and what it means."""

    default: Any
    choices: tuple[str, ...] | None
    text: str

    @property
    def sentence(self) -> str:
        """The help of a command's option: the meaning, then the default, except of a flag and where it is None."""
        text = f"{self.text[:1].upper()}{self.text[1:]}".replace("``", "")
        shown = self.default is not None and self.default is not False
        return f"{text.rstrip('.')}; default {plain(self.default)}." if shown else text


def setting_help(name: str) -> Setting:
    """Return what `FinetuneConfig` says of one of its settings.

    >>> setting_help("labels").choices
    ('data', 'none')
    >>> setting_help("epochs").sentence
    'Passes over the training images; default 10.'
    """
    kind, _ = _without_none(get_type_hints(FinetuneConfig)[name])
    text = re.search(rf"^ +{name}: (.+)$", FinetuneConfig.__doc__ or "", re.MULTILINE)
    choices = get_args(kind) if get_origin(kind) is Literal else None
    return Setting(getattr(FinetuneConfig, name), choices, text[1] if text else "")


def _check(name: str, value: object, rule: _Rule) -> None:
    if not rule.holds(value):
        raise ConfigError(f"{name} is {value}; {rule.accepted} is accepted.")


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Return a value in its field's type; text is parsed."""
    kind, optional = _without_none(hint)
    if optional and (value is None or (value == "none" and "none" not in get_args(kind))):
        return None
    try:
        return _parsed(value, kind)
    except (TypeError, ValueError, KeyError):
        raise ConfigError(f"{name} is {value!r}; {_described(kind)}{' or none' * optional} is accepted.") from None


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether it allowed None."""
    optional = NoneType in get_args(hint)
    return (next(a for a in get_args(hint) if a is not NoneType) if optional else hint), optional


def _parsed(value: Any, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError
        return value
    if get_origin(kind) is Union:
        return _first_parsed(value, get_args(kind))
    if get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, Sequence) or not items:
            raise ValueError
        return tuple(_parsed(item, get_args(kind)[0]) for item in items)
    if kind is bool:
        return {"true": True, "false": False}[str(value).lower()]
    if isinstance(value, bool) or (kind is str and not isinstance(value, str)):
        raise TypeError
    # Other than int(), index() refuses a fraction.
    return operator.index(value) if kind is int and not isinstance(value, str) else kind(value)


def _first_parsed(value: Any, kinds: Sequence[Any]) -> Any:
    for kind in kinds[:-1]:
        try:
            return _parsed(value, kind)
        except (TypeError, ValueError, KeyError):
            continue
    return _parsed(value, kinds[-1])


def _described(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    if get_origin(kind) is Union:
        return " or ".join(map(_described, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list of {'whole numbers' if get_args(kind)[0] is int else 'numbers'}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
