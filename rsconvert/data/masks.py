"""Masks: encoded files → the class of each position, (H, W)."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rsconvert.data.decoding import UnreadableImageError, refuse_drawing
from rsconvert.errors import DataError, one_line

__all__ = ["MaskReading", "nearest", "read_mask"]

_COLOURS = ("RGB", "RGBA", "RGBX")


@dataclass(frozen=True, kw_only=True)
class MaskReading:
    """How the values of masks are read.

    Attributes:
        classes: how many the network knows; None if that is unknown.
        ignore_index: the value where nothing is known, before and after ``label_offset``.
        label_offset: is subtracted from every other value; what becomes negative is ignored.
    """

    classes: int | None = None
    ignore_index: int = 255
    label_offset: int = 0


def read_mask(content: bytes | Image.Image, name: str, reading: MaskReading) -> Tensor:
    """Return the classes (H, W) of a palette or grey image, int16 or int64; ``name`` is what an error calls it.

    Raises:
        DataError: it can't be decoded, is in colour, or holds a value that is no class, or is none by the offset.
    """
    try:
        if isinstance(content, Image.Image):
            values = _values(content, name)
        else:
            with Image.open(io.BytesIO(content)) as picture:
                values = _values(picture, name)
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever a broken file leads them to
        raise UnreadableImageError(
            f"mask {name} can't be decoded ({one_line(error)}); an intact PNG, or another file without losses, is "
            "needed. Replace or remove it."
        ) from error
    ignored = values == reading.ignore_index
    labels = values.astype(np.int64) - reading.label_offset
    if reading.label_offset:
        _check_offset(labels[~ignored & (labels >= 0)], name, reading)
    labels[ignored | (labels < 0)] = reading.ignore_index
    if reading.classes is not None:
        _check_classes(labels, name, reading, reading.classes)
    small = -(2**15) <= reading.ignore_index < 2**15 and labels.max(initial=0) < 2**15
    return torch.from_numpy(labels.astype(np.int16) if small else labels)


def nearest(mask: Tensor, height: int, width: int) -> Tensor:
    """Return a mask (…, H, W) at another size: each position takes the value at its centre."""
    rows, columns = (
        ((torch.arange(new) + 0.5) * (old / new)).long().clamp(max=old - 1)
        for new, old in ((height, mask.shape[-2]), (width, mask.shape[-1]))
    )
    return mask[..., rows[:, None].to(mask.device), columns.to(mask.device)]


def _values(picture: Image.Image, name: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    refuse_drawing(picture, f"mask {name}")
    if picture.format in ("JPEG", "MPO"):
        raise DataError(f"mask {name} is a JPEG, whose values are not exact; a PNG is needed. Write it again.")
    if picture.mode in _COLOURS:
        channels = np.asarray(picture.convert("RGB"))
        if (channels == channels[..., :1]).all():
            return channels[..., 0]
    elif picture.mode == "1" or picture.mode in ("P", "L") or picture.mode.startswith("I"):
        return np.asarray(picture)
    problem, remedy = "several values per position", "Convert its colours to indices"
    if picture.mode == "F":
        problem, remedy = "fractions", "Write whole numbers"
    raise DataError(
        f"mask {name} has the mode {picture.mode} with {problem}; a palette or grey image, whose values are classes, "
        f"is needed. {remedy}."
    )


def _check_offset(labels: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]", name: str, reading: MaskReading) -> None:
    if (labels == reading.ignore_index).any():
        raise DataError(
            f"mask {name} has the value {reading.ignore_index + reading.label_offset}, which the label offset "
            f"{reading.label_offset} makes {reading.ignore_index}, where nothing is known; no class may become that. "
            "Convert with another --ignore-index."
        )


def _check_classes(
    labels: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]", name: str, reading: MaskReading, classes: int
) -> None:
    wrong = labels[(labels >= classes) & (labels != reading.ignore_index)]
    if wrong.size:
        found = int(wrong[0]) + reading.label_offset
        offset = f" after the label offset {reading.label_offset}" if reading.label_offset else ""
        raise DataError(
            f"mask {name} has the value {found}; 0 to {classes - 1}{offset}, or {reading.ignore_index} where nothing "
            "is known, is accepted. Give --label-offset, or convert with --num-classes or --ignore-index."
        )
