"""Folders of images as they are found → the files of each class, in an order that no file system decides."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from timm.utils.misc import natural_key

from rsconvert.errors import DataError

__all__ = ["SPLITS", "Split", "class_files", "images_below", "in_order", "split_folder"]

Split = Literal["train", "val", "test"]

SPLITS: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
"""The names of each split's folder."""

_EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif", ".jp2")
)


def split_folder(folder: Path, split: Split) -> Path:
    """Return the folder that holds the class folders of a split.

    A plain folder of classes, with none for a split, is its own val.

    Raises:
        DataError: there is no such folder, or it has none for this split.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(
            f"{folder} {problem}; data is a folder with train/ and val/, or a timm data-set string such as "
            "hfds/NAME or torch/NAME. Check the path."
        )
    for name in SPLITS[split]:
        if (folder / name).is_dir():
            return folder / name
    if split == "val" and _is_plain(folder):
        return folder
    wanted = " or ".join(f"{name}/" for name in SPLITS[split])
    raise DataError(f"{folder} has no folder {wanted}; it needs one, with a folder of images per class.")


def _is_plain(folder: Path) -> bool:
    return not any((folder / name).is_dir() for names in SPLITS.values() for name in names)


def class_files(base: Path) -> dict[str, list[str]]:
    """Return the images of each class folder, both in timm's order, in which "9" comes before "10".

    Raises:
        DataError: there are no class folders, or one holds no image.
    """
    folders = [entry.name for entry in base.iterdir() if entry.is_dir() and not _is_hidden(entry.name)]
    if not folders:
        raise DataError(f"{base} has no class folders; it needs one folder of images per class.")
    found = {name: sorted(images_below(base / name), key=in_order) for name in sorted(folders, key=in_order)}
    if empty := [name for name, files in found.items() if not files]:
        raise DataError(
            f"{base / empty[0]} holds no images; a class folder needs at least one file that ends in "
            f"{' '.join(sorted(_EXTENSIONS))}. Fill or remove it."
        )
    return found


def _is_hidden(name: str) -> bool:
    """Return whether a folder is none of the user's: of a system, an editor, an archive or a photo store."""
    return name.startswith((".", "@")) or name == "__MACOSX"


def in_order(name: str) -> tuple[Any, str]:
    """Return what names are sorted by: timm's order, in which equal ones, as Cat and cat, have an order too."""
    return natural_key(name), name


def images_below(folder: Path) -> Iterator[str]:
    """Yield the images below a folder by their suffixes, without hidden files and folders.

    Links are followed, but to no folder twice: one that leads upwards counts no image again.
    """
    seen: set[tuple[int, int]] = set()
    for parent, below, files in os.walk(folder, followlinks=True):
        place = os.stat(parent)
        if (place.st_dev, place.st_ino) in seen:
            below.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        below[:] = sorted(name for name in below if not _is_hidden(name))
        for file in files:
            if os.path.splitext(file)[1].lower() in _EXTENSIONS and not file.startswith("."):
                yield os.path.join(parent, file)
