"""Folders of images as they are found → the files of each class, in an order that no file system decides."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

from timm.utils.misc import natural_key

from rsconvert.data.decoding import HEIF_PACKAGE, reads_heif
from rsconvert.errors import DataError
from rsconvert.text import printable

__all__ = [
    "SPLITS",
    "Split",
    "class_files",
    "divide",
    "files_below",
    "image_endings",
    "images_below",
    "in_order",
    "is_plain",
    "split_folder",
]

Split = Literal["train", "val", "test"]
_Files = dict[str, list[str]]  # of each class

SPLITS: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
"""The names of each split's folder."""

_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif", ".jp2")
)
_HEIF = frozenset((".heic", ".heif"))
_LOOSE, _SHOWN = "images outside of the class folders", 5


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
    if split == "val" and is_plain(folder):
        return folder
    wanted = " or ".join(f"{name}/" for name in SPLITS[split])
    divided = " Or divide a plain folder of classes by split." if split == "train" and is_plain(folder) else ""
    raise DataError(f"{folder} has no folder {wanted}; it needs one, with a folder of images per class.{divided}")


def is_plain(folder: Path) -> bool:
    """Return whether a folder has none for a split."""
    return not any((folder / name).is_dir() for names in SPLITS.values() for name in names)


def class_files(base: Path) -> dict[str, list[str]]:
    """Return the images of each class folder, both in timm's order, in which "9" comes before "10".

    A line of the log counts what is left out.

    Raises:
        DataError: there are no class folders, or one holds no image.
    """
    entries = [entry for entry in base.iterdir() if not _is_hidden(entry.name)]
    above = (base.resolve(), *base.resolve().parents)  # a link to one of these is no class
    folders = sorted((entry.name for entry in entries if entry.is_dir() and entry.resolve() not in above), key=in_order)
    if not folders:
        raise DataError(f"{base} has no class folders; it needs one folder of images per class.")
    others = Counter[str](_LOOSE for entry in entries if _is_image(entry.name) and not entry.is_dir())
    found = {name: _images(base / name, others) for name in folders}
    _log_left_out(base, others)
    if empty := [name for name, files in found.items() if not files]:
        raise DataError(
            f"{base / empty[0]} holds no images; a class folder needs at least one file that ends in "
            f"{' '.join(sorted(image_endings()))}. Fill or remove it."
        )
    return found


def divide(base: Path, found: _Files, share: float) -> tuple[_Files, _Files]:
    """Return the images of each class in two parts; the first holds about ``share`` of them.

    A hash of its name below ``base`` decides for each image, so it stays in its part when others come or go; only a
    part without any takes the one that is nearest to it.

    Raises:
        DataError: a class has one image alone.
    """
    first: _Files = {}
    second: _Files = {}
    for name, files in found.items():
        if len(files) < 2:
            raise DataError(f"{base / name} holds 1 image; a class needs at least 2 to be divided. Add some.")
        places = {path: _place(path.removeprefix(str(base))) for path in files}
        lowest, highest = min(files, key=places.__getitem__), max(files, key=places.__getitem__)
        first[name] = [p for p in files if p != highest and (places[p] < share or p == lowest)]
        own = {*first[name]}
        second[name] = [p for p in files if p not in own]
    return first, second


def _place(name: str) -> float:
    """Return a number in [0, 1] that follows from a name alone."""
    code = Path(name).as_posix().lstrip("/").encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(code, digest_size=8).digest()) / 2**64


def images_below(folder: Path) -> list[str]:
    """Return the images below a folder by their suffixes, in order; a line of the log counts what is left out."""
    others = Counter[str]()
    found = _images(folder, others)
    _log_left_out(folder, others)
    return found


def _images(folder: Path, others: Counter[str]) -> list[str]:
    """Return the images below a folder, and count the suffixes of what is none."""
    images = []
    for path in files_below(folder):
        if _is_image(path):
            images.append(path)
        else:
            others[os.path.splitext(path)[1].lower() or "without an ending"] += 1
    return sorted(images, key=in_order)


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in image_endings()


@cache
def image_endings() -> frozenset[str]:
    """Return the endings of the files that can be read here, in lower case."""
    return _ENDINGS | (_HEIF if reads_heif() else frozenset())


def _log_left_out(folder: Path, others: Counter[str]) -> None:
    if not others:
        return
    ordered = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count} {ending}" for ending, count in ordered[:_SHOWN]]
    rest = f", {sum(count for _, count in ordered[_SHOWN:])} more" if ordered[_SHOWN:] else ""
    remedy = f"; .heic needs {HEIF_PACKAGE}" if not _HEIF.isdisjoint(others) else ""
    # Without a handler of the caller's, a line on stderr.
    logging.getLogger(__name__).warning("note: %s", printable(f"{folder}: left out {', '.join(shown)}{rest}{remedy}"))


def _is_hidden(name: str) -> bool:
    """Return whether a folder is none of the user's: of a system, an editor, an archive or a photo store."""
    return name.startswith((".", "@")) or name == "__MACOSX"


def in_order(name: str) -> tuple[Any, str]:
    """Return what names are sorted by: timm's order, in which equal ones, as Cat and cat, have an order too."""
    return natural_key(name), name


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def files_below(folder: Path) -> Iterator[str]:
    """Yield the files below a folder, without hidden ones and those of hidden folders.

    Links are followed, but to no folder twice, nor to one that holds this folder: its files are no part of it.
    """
    seen = {_identity(parent) for parent in folder.resolve().parents}
    for parent, below, files in os.walk(folder, followlinks=True):
        place = _identity(parent)
        if place in seen:
            below.clear()
            continue
        seen.add(place)
        below[:] = sorted(name for name in below if not _is_hidden(name))
        yield from (os.path.join(parent, file) for file in files if not file.startswith("."))
