"""Names of data sets → labelled images that are read one by one.

A name is a folder that holds ``train/`` and ``val/`` (or ``validation/``) with one folder per class, or a timm data-set
string: ``torch/cifar10``, ``hfds/…``. Sets that can only be read in order, ``wds/`` and ``hfids/``, become streams.
"""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from timm.utils.misc import natural_key

from rsconvert.data.pairs import images_of_pairs
from rsconvert.data.samples import Samples
from rsconvert.data.streams import Stream, class_names, open_by_timm
from rsconvert.errors import ConfigError, DataError

__all__ = ["images_below", "in_order", "is_hidden", "open_images", "open_split", "open_train_val"]

Split = Literal["train", "val"]

_FOLDERS: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "validation", "valid")}
# The Hub's data sets say "validation"; "test" is left out, since nobody should tune on it unawares.
_HUB_SPLITS: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("validation", "val", "valid")}
_EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif", ".jp2")
)


def open_split(data: str, split: Split, *, root: str | None = None) -> Samples:
    """Open one split of a data set; ``root`` is where a data set named by a timm string lies or is cached.

    Raises:
        DataError: there is no such data set or split, it lacks images, or it can't be read by index.
        ConfigError: ``root`` is given together with a folder.
    """
    if not data:
        raise DataError("data is empty; a folder or a timm data-set string is needed.")
    kind = data.partition("/")[0].lower()
    if kind == "tfds":
        raise DataError(
            f"{data} is read by TensorFlow; a folder, torch/…, hfds/…, hfids/…, wds/… are supported. Unpack it into "
            "class folders, or choose another source."
        )
    if kind in ("hfids", "wds") and "/" in data:
        return _first_split(data, split, root, Stream)
    if kind in ("torch", "hfds") and "/" in data:
        return _open_torch(data, split, root) if kind == "torch" else _open_hub(data, split, root)
    if root is not None:
        raise ConfigError(f"data_root is {root}, which has no effect on the folder {data}. Leave it out.")
    return _open_folder(Path(data), split)


def open_images(data: str, *, root: str | None = None) -> Samples:
    """Open images whose labels don't matter: those below a folder, or below its ``train/``, or a timm string's train.

    Of a folder or table of images with masks these are the training images.

    Raises:
        DataError, ConfigError: as `open_split`.
    """
    folder = Path(data)
    if data and root is None and (paths := images_of_pairs(data)):
        return Samples(_Files(paths, [0] * len(paths)), data, None, paths)
    if not data or not folder.is_dir() or root is not None:
        return open_split(data, "train", root=root)
    base = folder / "train" if (folder / "train").is_dir() else folder
    paths = sorted(images_below(base), key=in_order)
    return Samples(_Files(paths, [0] * len(paths)), str(base), None, paths)


def open_train_val(data: str, *, root: str | None = None) -> tuple[Samples, Samples]:
    """Open both splits of a data set.

    Raises:
        DataError: as `open_split`, and when the splits do not have the same classes.
    """
    train, val = open_split(data, "train", root=root), open_split(data, "val", root=root)
    if train.classes != val.classes:
        raise DataError(
            f"{data} has other classes in train than in val ({_difference(train.classes or (), val.classes or ())}); "
            "both need the same ones. Add or remove class folders."
        )
    return train, val


class _Files:
    """The encoded images below the class folders of one split."""

    def __init__(self, paths: Sequence[str], targets: Sequence[int]) -> None:
        self._paths, self._targets = paths, targets

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return _read_bytes(self._paths[index]), self._targets[index]


def _open_folder(folder: Path, split: Split) -> Samples:
    base = _split_folder(folder, split)
    folders = [entry.name for entry in base.iterdir() if entry.is_dir() and not is_hidden(entry.name)]
    if not folders:
        raise DataError(f"{base} has no class folders; it needs one folder of images per class.")
    classes = tuple(sorted(folders, key=in_order))  # timm's order, in which "9" comes before "10"
    paths: list[str] = []
    targets: list[int] = []
    for target, name in enumerate(classes):
        found = sorted(images_below(base / name), key=in_order)
        if not found:
            raise DataError(
                f"{base / name} holds no images; a class folder needs at least one file that ends in "
                f"{' '.join(sorted(_EXTENSIONS))}. Fill or remove it."
            )
        paths += found
        targets += [target] * len(found)
    return Samples(_Files(paths, targets), str(base), classes, paths)


def _split_folder(folder: Path, split: Split) -> Path:
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(
            f"{folder} {problem}; data is a folder with train/ and val/, or a timm data-set string such as "
            "hfds/NAME or torch/NAME. Check the path."
        )
    for name in _FOLDERS[split]:
        if (folder / name).is_dir():
            return folder / name
    wanted = " or ".join(f"{name}/" for name in _FOLDERS[split])
    raise DataError(f"{folder} has no folder {wanted}; it needs one, with a folder of images per class.")


def is_hidden(name: str) -> bool:
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
        below[:] = sorted(name for name in below if not is_hidden(name))
        for file in files:
            if os.path.splitext(file)[1].lower() in _EXTENSIONS and not file.startswith("."):
                yield os.path.join(parent, file)


def _open_torch(data: str, split: Split, root: str | None) -> Samples:
    if root is None:
        raise DataError(
            f"{data} needs the folder in which torchvision stored it; nothing is downloaded. Give it by data_root."
        )
    source = open_by_timm(data, split, root)
    if hasattr(source, "loader"):  # files on disk: take the bytes, for the faster decoder
        source.loader = _read_bytes
    # torchvision's ImageNet has a tuple of synonyms per class.
    names = (name if isinstance(name, tuple) else (str(name),) for name in getattr(source, "classes", None) or ())
    return Samples(source, f"{data} {split}", tuple(map(", ".join, names)) or None)


def _open_hub(data: str, split: Split, root: str | None) -> Samples:
    if importlib.util.find_spec("datasets") is None:
        raise DataError(f"{data} needs the package datasets, which is not installed. Run `pip install datasets`.")
    return _first_split(data, split, root, _hub_samples)


def _first_split(
    data: str, split: Split, root: str | None, open_one: Callable[[str, str, str | None], Samples]
) -> Samples:
    *names, last = _HUB_SPLITS[split]
    for name in names:
        with contextlib.suppress(DataError):
            return open_one(data, name, root)
    return open_one(data, last, root)


def _hub_samples(data: str, split: str, root: str | None) -> Samples:
    # timm's ImageDataset replaces an unreadable sample by the next one; its reader does not.
    reader = open_by_timm(data, split, root).reader
    return Samples(reader, f"{data} {split}", class_names(reader))


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _difference(train: tuple[str, ...], val: tuple[str, ...]) -> str:
    parts = []
    for only, here, there in (("train", train, set(val)), ("val", val, set(train))):
        if extra := [name for name in here if name not in there]:
            parts.append(f"{len(extra)} only in {only}: {', '.join(extra[:3])}{', …' if len(extra) > 3 else ''}")
    return "; ".join(parts) or "in another order"
