"""ImageArgument: which argument of forward holds images, and how they lie in it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ImageArgument"]

_LETTERS = {1: "L", 2: "HW", 3: "HWD"}


@dataclass(frozen=True, kw_only=True)
class ImageArgument:
    """An argument of ``forward`` whose size tells the resolution.

    ``position`` and ``name`` say where it stands in a call, ``keys`` lead to it inside a dictionary. ``axes``, counted
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
        shaped = type(ndim) is int and 0 < ndim <= 8 and type(axes) is list and 0 < len(axes) <= ndim
        if not (placed and named and shaped and _are_axes(axes, ndim) and (channels is None or _fit(channels, ndim))):
            raise ValueError(f"images holds {dict(facts)!r}")
        pair = None if channels is None else (channels[0], channels[1])
        return cls(position=position, name=name, keys=tuple(keys), ndim=ndim, axes=tuple(axes), channels=pair)


def _are_axes(axes: Any, ndim: Any) -> bool:
    return all(type(axis) is int and -ndim <= axis < 0 for axis in axes) and len(set(axes)) == len(axes)


def _fit(channels: Any, ndim: Any) -> bool:
    pair = type(channels) is list and len(channels) == 2
    return pair and _are_axes(channels[:1], ndim) and type(channels[1]) is int and channels[1] > 0
