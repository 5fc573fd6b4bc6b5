"""Labelled images that are read one by one, and the outputs of a network that belong to their labels."""

import hashlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from rsconvert.data.decoding import EncodedImage, UnreadableImageError, from_pillow
from rsconvert.errors import DataError, one_line
from rsconvert.text import read_pairs

__all__ = ["Samples", "read_class_map", "read_output_names"]

_LOOKED_AT, _BEGINNING = 200, 4096  # files, bytes of each


class _Source(Protocol):
    """Gives an encoded file (bytes or open) or a Pillow image, and its target."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Any, Any]: ...


@dataclass(frozen=True)
class _Renumbered:
    """Samples whose targets have other numbers."""

    samples: "Samples"
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        content, target = self.samples._source[index]
        return content, self.numbers[self.samples.checked(target, self.samples.name(index))]


class Samples:
    """Labelled images by index; ``classes`` names the targets 0, 1, … where the set has names."""

    def __init__(
        self, source: _Source, label: str, classes: tuple[str, ...] | None, names: Sequence[str] | None = None
    ) -> None:
        self.label, self.classes = label, classes
        self._source, self._names = source, names

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        """Return the file of a sample, or the set's name with the index."""
        return self._names[index] if self._names is not None else f"{self.label}[{index}]"

    def subset(self, indices: Sequence[int]) -> "Samples":
        """Return the samples of these indices, in their order."""
        return Samples(Subset(self._source, indices), self.label, self.classes, [self.name(i) for i in indices])  # type: ignore[arg-type]

    def as_classes(self, classes: tuple[str, ...] | None) -> "Samples":
        """Return the samples with targets among ``classes``, where these hold all of their own by name; else as is."""
        own = self.classes
        if own is None or classes is None or own == classes or not {*own} < {*classes}:
            return self
        places = {name: place for place, name in enumerate(classes)}
        return Samples(_Renumbered(self, tuple(map(places.__getitem__, own))), self.label, classes, self._names)

    def fingerprint(self) -> str:
        """Return a short hash of the images: all names, and of files the sizes and beginnings of some hundred.

        Names count from the folder on, so that a folder that was moved is the same.
        """
        whole = hashlib.blake2b(digest_size=8)
        for index in range(len(self)) if self._names is not None else ():
            whole.update(f"{self.name(index).removeprefix(self.label)}\0".encode(errors="surrogateescape"))
        for index in range(0, len(self), 1 + len(self) // _LOOKED_AT):
            with suppress(OSError), open(self.name(index), "rb") as file:
                whole.update(f"{os.fstat(file.fileno()).st_size}".encode() + file.read(_BEGINNING))
        return whole.hexdigest()

    def read(self, index: int) -> tuple[Tensor, int]:
        """Return an image, uint8 RGB of shape (3, H, W), and its target.

        Raises:
            DataError: the sample can't be read or decoded, or its target is no class.
        """
        image, target = self.open(index)
        return (image.decode() if isinstance(image, EncodedImage) else image), target

    def open(self, index: int) -> tuple[EncodedImage | Tensor, int]:
        """Return what `read` does, but a file not decoded yet: damage behind its header is found later."""
        name = self.name(index)
        try:
            content, target = self._source[index]
        except Exception as error:  # timm's and torchvision's sets raise whatever their storage does
            raise _unreadable(name, error) from error
        return self.as_image(content, name), self.checked(target, name)

    def as_image(self, content: Any, name: str) -> EncodedImage | Tensor:
        """Return what the storage gave for the image ``name``: a file as bytes or open, or a Pillow image."""
        try:
            if hasattr(content, "read"):
                with content:
                    content = content.read()
            image = from_pillow(content) if isinstance(content, Image.Image) else bytes(content)
        except Exception as error:  # of files that are read late
            raise _unreadable(name, error) from error
        return EncodedImage(image, name) if isinstance(image, bytes) else image

    def checked(self, target: object, name: str) -> int:
        """Return the target of the sample ``name``; a DataError says that it is no class."""
        classes = len(self.classes) if self.classes is not None else sys.maxsize
        if isinstance(target, Integral) and 0 <= int(target) < classes:
            return int(target)
        accepted = f"one of 0 to {classes - 1}" if self.classes is not None else "an integer from 0 upwards"
        raise DataError(f"{name} has the target {target!r}; a target is {accepted}.")


def _unreadable(name: str, error: Exception) -> UnreadableImageError:
    return UnreadableImageError(f"{name} can't be read ({one_line(error)}). Replace or remove it.")


def read_class_map(path: str | Path, classes: Sequence[str] | None) -> tuple[int, ...]:
    """Return the output index of each class, in the order of ``classes``, such as ``samples.classes``.

    The file is a JSON object, ``{"n01440764": 0, …}``, or has a line ``NAME INDEX`` for each class, with blanks or a
    comma between. It may name more classes than the data holds.

    Raises:
        DataError: the file can't be read; it lacks a class, or names one twice; an index is no whole number of 0 or
            more, or is that of two classes; ``classes`` is None.
    """
    if classes is None:
        raise DataError(f"class map {path} needs classes with names; the data has none. Leave it out.")
    indices, owners = _indices(path), dict[int, str]()
    for name in classes:
        if name not in indices:
            raise DataError(
                f"class map {path} lacks {name!r}; each of the {len(classes)} classes of the data needs its index."
            )
        if other := owners.get(indices[name]):
            raise DataError(
                f"class map {path} gives {indices[name]} to {other!r} and {name!r}; each class needs its own output."
            )
        owners[indices[name]] = name
    return tuple(owners)


def read_output_names(path: str | Path) -> dict[int, str]:
    """Return the name of each output that a class map names, in the order of the file.

    Raises:
        DataError: as `read_class_map`, or the file names none.
    """
    names = list(_indices(path))
    if not names:
        raise DataError(f"class map {path} is empty; lines NAME INDEX, or a JSON object, are needed.")
    return dict(zip(read_class_map(path, names), names, strict=True))


def _indices(path: str | Path) -> dict[str, int]:
    try:
        # A name may hold blanks and commas; the index is what follows the last of them.
        pairs = read_pairs(path, r"(.*?\S)(?:\s*,\s*|\s+)(\S+)", lambda text: int(text) if text.isdecimal() else text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"class map {path} can't be read ({one_line(error)}); a JSON object of names and indices, or lines NAME "
            "INDEX, are needed."
        ) from error
    indices: dict[str, int] = {}
    for name, index in pairs:
        if name in indices:
            raise DataError(f"class map {path} names {name!r} twice; one index per class is needed. Remove a line.")
        if type(index) is not int or index < 0:
            raise DataError(f"class map {path} gives {index!r} to {name!r}; an index is a whole number of 0 or more.")
        indices[name] = index
    return indices
