"""Encoded files → images: uint8 RGB of shape (3, H, W), upright as viewers show them, and these in grey (1, H, W).

The three colours of a pixel lie side by side in memory (channels last): so the decoders write them, and only so does
torch resize uint8 at full speed.
"""

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torchvision  # noqa: F401 - registers the decoders under torch.ops.image
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from rsconvert.errors import DataError, one_line

__all__ = [
    "HEIF_PACKAGE",
    "EncodedImage",
    "UnreadableImageError",
    "as_pillow",
    "check_channels",
    "from_pillow",
    "in_channels",
    "reads_heif",
    "refuse_drawing",
]

HEIF_PACKAGE = "the package pillow-heif (pip install pillow-heif)"

_RGB = 3  # torchvision.io.ImageReadMode.RGB, whose module warns of its own removal
_JPEG = ("JPEG", "MPO")
_DRAWN = ("EPS", "WMF")  # programs that Pillow has drawn by Ghostscript, or by Windows
# What torchvision decodes faster than Pillow, and alike. Not PNG: a damaged one ends the process in it.
_FAST = (*_JPEG, "WEBP")
_SIZES = frozenset(bytes([0xC0 + i]) for i in range(16) if i not in (4, 8, 12))  # a JPEG's markers before its size
_ORIENTATION = 0x0112  # in EXIF data, which Pillow keeps under these names
_EXIF = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
# By orientation: which of rows and columns are mirrored; from 5 on they change places before.
_MIRRORED: dict[object, tuple[int, ...]] = {2: (2,), 3: (1, 2), 4: (1,), 5: (), 6: (2,), 7: (1, 2), 8: (1,)}
_SWAPPED = (5, 6, 7, 8)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class UnreadableImageError(DataError):
    """Replace or remove the file, or let it pass by ``skip_broken``."""


class EncodedImage:
    """A file of which only the header has been read; ``shape`` is (3, H, W) of the upright image.

    ``name`` is what an error calls the file.

    Raises:
        DataError: ``data`` is no image, or has more than twice Pillow's ``Image.MAX_IMAGE_PIXELS``.
    """

    _format: str | None
    _orientation: object

    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._name = data, name
        if _is_heif(data) and reads_heif():
            importlib.import_module("pillow_heif").register_heif_opener()
        size = _plain_jpeg(data)
        if size is not None:
            (width, height), self._format, self._orientation = size, "JPEG", None
        else:
            with self._named_errors(), Image.open(io.BytesIO(data)) as picture:
                refuse_drawing(picture, name)
                (width, height), self._format, self._orientation = picture.size, picture.format, _orientation(picture)
        self.shape = (3, width, height) if self._orientation in _SWAPPED else (3, height, width)

    def decode(self, reduction: int = 1) -> Tensor:
        """Return the image; of a JPEG each side is divided by ``reduction`` (1, 2, 4 or 8) and rounded up.

        Alpha is dropped and 16-bit values keep their high byte, as in timm and torchvision. An animation gives its
        first frame.

        Raises:
            DataError: the file is damaged or truncated.
        """
        reduced = reduction > 1 and self._format in _JPEG
        image = self._decode_fast() if self._format in _FAST and not reduced else None
        if image is not None:
            return _upright(image, self._orientation)
        with self._named_errors(), Image.open(io.BytesIO(self._data)) as picture:
            if reduced:
                picture.draft("RGB", (picture.width // reduction, picture.height // reduction))
            return _upright(_pixels(picture), self._orientation)

    def _decode_fast(self) -> Tensor | None:
        data = torch.frombuffer(bytearray(self._data), dtype=torch.uint8)
        try:
            image: Tensor = torch.ops.image.decode_image(data, _RGB, False)
        except (AttributeError, RuntimeError, ValueError):
            return None  # a damaged file, or a torchvision without decoders: Pillow can say which
        return image if image.dtype == torch.uint8 and image.ndim == 3 else None  # neither 16 bit nor an animation

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # Pillow's plugins raise whatever a broken file leads them to
            raise UnreadableImageError(
                f"{self._name} can't be decoded ({_reason(self._data, error)}); images are intact JPEG, PNG, WebP or "
                "other files that Pillow opens. Replace or remove it."
            ) from error


def reads_heif() -> bool:
    """Return whether HEIC files can be read here, by pillow-heif."""
    return importlib.util.find_spec("pillow_heif") is not None


def refuse_drawing(picture: Image.Image, name: str) -> None:
    """Raise a DataError for an image that is a program, which another program would have to draw."""
    if picture.format in _DRAWN:
        raise UnreadableImageError(
            f"{name} is {picture.format}, a program that another one would have to draw; an image of pixels is needed. "
            "Convert it to PNG."
        )


def from_pillow(picture: Image.Image) -> Tensor:
    """Return a Pillow image as uint8 RGB of shape (3, H, W), upright.

    Raises:
        DataError: it is a program that another one would have to draw.
    """
    refuse_drawing(picture, "an image")
    picture.load()  # which turns a TIFF upright
    return _upright(_pixels(picture), _orientation(picture))


def as_pillow(image: Tensor) -> Image.Image:
    """Return an image, uint8 (3, H, W) or grey (1, H, W), as one of Pillow's."""
    pixels = image.permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if image.shape[0] == 1 else pixels)


def in_channels(image: Tensor, channels: int) -> Tensor:
    """Return an image (3, H, W) as a network of so many channels takes it: as it is, or in grey, (1, H, W).

    Grey values are those of Pillow's mode L, which timm takes for one channel.

    Raises:
        DataError: as `check_channels`.
    """
    check_channels(channels)
    if channels == image.shape[0]:
        return image
    return torch.from_numpy(np.array(as_pillow(image).convert("L")))[None]


def check_channels(channels: int) -> None:
    """Raise a DataError unless photos can be given to a network of so many channels."""
    if channels not in (1, 3):
        raise DataError(
            f"the network takes images of {channels} channels; a photo has 3, or 1 in grey. Give it tensors of your "
            "own, net(x); benchmark and export need no photos."
        )


def _plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """Return the width and height of a JPEG that needs no turn; None leaves the file to Pillow, ten times slower."""
    position = 2 if data[:2] == b"\xff\xd8" else len(data)
    while data[position : position + 1] == b"\xff":
        marker = data[position + 1 : position + 2]
        if marker == b"\xe1":  # EXIF or XMP data, which may hold an orientation
            return None
        if marker in _SIZES:
            height, width = (int.from_bytes(data[at : at + 2]) for at in (position + 5, position + 7))
            return (width, height) if 0 < width * height <= (Image.MAX_IMAGE_PIXELS or 0) else None
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return None


def _is_heif(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def _pixels(picture: Image.Image) -> Tensor:
    if picture.mode.startswith("I"):  # 16 bits, which Pillow's own conversion would clip at 255
        picture = Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
    picture.info.pop("transparency", None)  # of which a palette would warn
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def _orientation(picture: Image.Image) -> object:
    # Asked without need, Pillow would decode a PNG to look for EXIF data behind the pixels.
    if not any(key in picture.info for key in _EXIF):
        return None
    try:
        return picture.getexif().get(_ORIENTATION)
    except Exception:  # damaged EXIF data, which the pixels do not need
        return None


def _upright(image: Tensor, orientation: object) -> Tensor:
    image = image.transpose(1, 2) if orientation in _SWAPPED else image
    mirrored = _MIRRORED.get(orientation)
    return image.flip(mirrored) if mirrored else image


def _reason(data: bytes, error: Exception) -> str:
    if not data:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError) and _is_heif(data):
        return f"HEIC needs {HEIF_PACKAGE}"
    return "no known image format" if isinstance(error, UnidentifiedImageError) else one_line(error)
