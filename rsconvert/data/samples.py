"""Labelled images that are read one by one."""

import sys
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Protocol

from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from rsconvert.data.decoding import EncodedImage, from_pillow
from rsconvert.errors import DataError

__all__ = ["Samples", "one_line"]


class _Source(Protocol):
    """Gives an encoded file (bytes or open) or a Pillow image, and its target."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Any, Any]: ...


class Samples:
    """Labelled images by index; ``classes`` names the targets 0, 1, … where the set has names."""

    def __init__(
        self, source: _Source, label: str, classes: tuple[str, ...] | None, names: Sequence[str] | None = None
    ) -> None:
        self.classes = classes
        self._source, self._label, self._names = source, label, names

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        """Return the file of a sample, or the set's name with the index."""
        return self._names[index] if self._names is not None else f"{self._label}[{index}]"

    def subset(self, indices: Sequence[int]) -> "Samples":
        """Return the samples of these indices, in their order."""
        return Samples(Subset(self._source, indices), self._label, self.classes, [self.name(i) for i in indices])  # type: ignore[arg-type]

    def read(self, index: int) -> tuple[Tensor, int]:
        """Return an image, uint8 RGB of shape (3, H, W), and its target.

        Raises:
            DataError: the sample can't be read or decoded, or its target is no class.
        """
        image, target = self.open(index)
        return (image.decode() if isinstance(image, EncodedImage) else image), target

    def open(self, index: int) -> tuple[EncodedImage | Tensor, int]:
        """Return an image, not decoded yet if it is a file, and its target.

        Raises:
            DataError: as `read`, but for damage behind the file's header.
        """
        name = self.name(index)
        try:
            content, target = self._source[index]
            if hasattr(content, "read"):
                with content:
                    content = content.read()
            image = from_pillow(content) if isinstance(content, Image.Image) else bytes(content)
        except Exception as error:  # timm's and torchvision's sets raise whatever their storage does
            raise DataError(f"{name} can't be read ({one_line(error)}). Replace or remove it.") from error
        return (EncodedImage(image, name) if isinstance(image, bytes) else image), self.checked(target, name)

    def checked(self, target: object, name: str) -> int:
        """Return the target of the sample that an error calls ``name``.

        Raises:
            DataError: it is no class.
        """
        classes = len(self.classes) if self.classes is not None else sys.maxsize
        if isinstance(target, Integral) and 0 <= int(target) < classes:
            return int(target)
        accepted = f"one of 0 to {classes - 1}" if self.classes is not None else "an integer from 0 upwards"
        raise DataError(f"{name} has the target {target!r}; a target is {accepted}. Correct the label.")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
