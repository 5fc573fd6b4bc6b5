"""Source: what a network was made from, as far as it is known."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from rsconvert.data import Preprocessing
from rsconvert.models.task import Task

__all__ = ["ImageArgument", "Source", "set_source", "source_of"]

_ATTRIBUTE = "rsconvert_source"
_LETTERS = {1: "L", 2: "HW", 3: "HWD"}


@dataclass(frozen=True, kw_only=True)
class ImageArgument:
    """An argument of ``forward`` whose size sets the resolution.

    ``position`` and ``name`` are its place in a call, ``keys`` lead to it inside a dictionary. ``axes``, counted
    from the end, are those that the resolution sets: two as a rule; three of a volume, which must be equal.
    ``channels`` is the axis of the channels, from the end, and their number; None if it is unknown.
    """

    position: int | None = 0
    name: str | None = None
    keys: tuple[str, ...] = ()
    ndim: int = 4
    axes: tuple[int, ...] = (-2, -1)
    channels: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        """The name as ``image=`` takes it: ``pixel_values``, ``batch.image``, or the position."""
        root = self.position if self.name is None else self.name
        return ".".join(map(str, (root, *self.keys)))

    @property
    def layout(self) -> str:
        """The axes in words: (N, 3, H, W)."""
        words = ["N", *["*"] * (self.ndim - 1)]
        if self.channels is not None:
            words[self.channels[0]] = str(self.channels[1])
        elif self.axes == (-2, -1) and self.ndim == 4:
            words[1] = "C"
        for axis, letter in zip(self.axes, _LETTERS.get(len(self.axes), "*" * len(self.axes)), strict=True):
            words[axis] = letter
        return f"({', '.join(words)})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without what is unknown."""
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "ImageArgument":
        """Read what ``to_dict`` wrote.

        Raises:
            ValueError: a field is missing or has another type or value.
        """
        position, name, keys = facts.get("position"), facts.get("name"), facts.get("keys", [])
        ndim, axes, channels = facts.get("ndim", 0), facts.get("axes", ()), facts.get("channels")
        placed = (name is not None and position is None) or (type(position) is int and position >= 0)
        named = type(name) in (str, type(None)) and type(keys) is list and all(type(key) is str for key in keys)
        if not (placed and named and _is_shape(ndim, axes, channels)):
            raise ValueError(f"images holds {dict(facts)!r}")
        pair = None if channels is None else (channels[0], channels[1])
        return cls(position=position, name=name, keys=tuple(keys), ndim=ndim, axes=tuple(axes), channels=pair)


def _is_shape(ndim: Any, axes: Any, channels: Any) -> bool:
    pair = [-1, 1] if channels is None else channels
    if not (type(ndim) is int and 0 < ndim <= 8 and type(axes) is list and type(pair) is list and len(pair) == 2):
        return False
    exist = all(type(axis) is int and -ndim <= axis < 0 for axis in [*axes, pair[0]])
    return exist and len(axes) == len(set(axes)) > 0 and type(pair[1]) is int and pair[1] > 0


@dataclass(frozen=True, kw_only=True)
class Source:
    """What it takes to build a plain model again and to prepare its inputs.

    ``architecture`` is a timm name, ``torchvision/NAME``, ``file.py:function`` or None for a model made elsewhere;
    ``model_kwargs`` are its arguments, with ``num_classes`` only if a file's function was given it, ``num_classes`` the
    outputs. ``task`` says what they stand for. ``built_with`` is the builder's argument that fits the model to a
    resolution, ``img_size`` or ``dynamic_img_size``, ``build`` for a function of the caller's, None if one model takes
    all sizes.
    ``images`` are the arguments of ``forward`` whose size chooses the path, None if that was not looked into.
    ``weights`` says where the values came from, ``licence`` what their publisher says of them, None if unknown,
    ``new_classifier`` which tensors they lacked; ``training`` holds what a finetuning run recorded.
    """

    architecture: str | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    task: Task = field(default_factory=Task)
    built_with: str | None = None
    images: tuple[ImageArgument, ...] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    weights: str | None = None
    licence: str | None = None
    new_classifier: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    training: Mapping[str, Any] | None = None

    @property
    def channels(self) -> int | None:
        """The channels of the first image (N, C, H, W) that ``forward`` takes; None if they are unknown."""
        known = (image.channels for image in self.images or () if image.ndim == 4 and len(image.axes) == 2)
        return next((pair[1] for pair in known if pair is not None), None)

    def for_its_images(self) -> "Source":
        """Return it with a mean and std for each channel of its images, where these are known."""
        return self if self.channels is None else self.with_channels(self.channels)

    def with_channels(self, channels: int) -> "Source":
        """Return it with a mean and std for so many channels, see ``Preprocessing.for_channels``."""
        return replace(self, preprocessing=self.preprocessing.for_channels(channels))


def source_of(model: nn.Module) -> Source:
    """Return what ``create_model`` noted on a model; an empty Source for a model made elsewhere."""
    source = vars(model).get(_ATTRIBUTE)
    return source if isinstance(source, Source) else Source()


def set_source(model: nn.Module, source: Source) -> None:
    """Note on a model what it was made from."""
    setattr(model, _ATTRIBUTE, source)
