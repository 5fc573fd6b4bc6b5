"""Photos as a caller has them, files, folders or images in memory → samples, or one normalized view."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rsconvert.data.decoding import EncodedImage, check_channels, from_pillow
from rsconvert.data.folders import images_below
from rsconvert.data.samples import Samples
from rsconvert.data.views import Preprocessing, crop_shares, evaluation_views, normalize
from rsconvert.errors import DataError

__all__ = ["Photo", "photo_samples", "prepare_photo"]

Photo = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
"""A file, an image of Pillow, uint8 pixels (H, W, 3) or (H, W) of NumPy, or (3, H, W) or (1, H, W) of torch."""


def photo_samples(photos: Photo | Iterable[Photo]) -> Samples:
    """Return photos as samples in their order, each of the target 0; a folder stands for all images below it.

    A sample's name is the file, or the place in the list of an image in memory.

    Raises:
        DataError: there is none, a file or folder does not exist, a folder holds no image, or pixels have another type
            or shape.
    """
    if isinstance(photos, str | os.PathLike | Image.Image | np.ndarray | Tensor):
        photos = [photos]
    items: list[str | Image.Image] = []
    names: list[str] = []
    for place, photo in enumerate(photos):
        found = _files(photo) if isinstance(photo, str | os.PathLike) else [_picture(photo)]
        items += found
        names += [item if isinstance(item, str) else str(place) for item in found]
    if not items:
        raise DataError("images is empty; at least one photo or folder is needed.")
    return Samples(_Photos(items), "photos", None, names)


def prepare_photo(photo: Photo, preprocessing: Preprocessing, trained: Sequence[int], resolution: int) -> Tensor:
    """Return a photo as a network takes it in evaluation: (1, C, r, r), cropped, normalized, float32.

    Args:
        trained: the resolutions to which the numbers of ``crop_pct`` belong.
        resolution: r, in pixels.
    Raises:
        DataError: the photo can't be read, or the network takes another number of channels than a photo has.
    """
    check_channels(preprocessing.channels)
    if isinstance(photo, str | os.PathLike):
        _check_file(photo)
        image = EncodedImage(Path(photo).read_bytes(), os.fspath(photo)).decode()
    else:
        image = from_pillow(_picture(photo))
    share = crop_shares(preprocessing, trained, [resolution])
    how, channels = preprocessing.interpolation, preprocessing.channels
    views = evaluation_views(image, [resolution], crop_pct=share, interpolation=how, channels=channels)
    return normalize(views[0][None], preprocessing)


class _Photos:
    """Files, read when they are asked for, and images in memory."""

    def __init__(self, items: Sequence[str | Image.Image]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[bytes | Image.Image, int]:
        item = self._items[index]
        return (Path(item).read_bytes() if isinstance(item, str) else item), 0


def _files(place: str | os.PathLike[str]) -> list[str]:
    if not Path(place).is_dir():
        _check_file(place)
        return [os.fspath(place)]
    found = images_below(Path(place))
    if not found:
        raise DataError(f"{place} holds no images; a folder with some, or photos, are needed. Check the path.")
    return found


def _check_file(place: str | os.PathLike[str]) -> None:
    if not Path(place).is_file():
        raise DataError(f"{place} does not exist; a photo or a folder of photos is needed. Check the path.")


def _picture(photo: object) -> Image.Image:
    """Return an image in memory as one of Pillow's."""
    if isinstance(photo, Image.Image):
        return photo
    if isinstance(photo, Tensor) and photo.dtype == torch.uint8 and photo.ndim == 3 and photo.shape[0] in (1, 3):
        photo = (photo[0] if photo.shape[0] == 1 else photo.permute(1, 2, 0)).cpu().numpy()
    if isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.size and _is_picture(photo.shape):
        return Image.fromarray(photo)
    found = f"{photo.dtype} of shape {tuple(photo.shape)}" if isinstance(photo, np.ndarray | Tensor) else repr(photo)
    raise DataError(
        f"an image is {found}; a file, an image of Pillow, uint8 of shape (H, W, 3) or (H, W) in NumPy, (3, H, W) or "
        "(1, H, W) in torch are accepted. Convert it; what is normalized already goes to net(x)."
    )


def _is_picture(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or shape[2:] == (3,)
