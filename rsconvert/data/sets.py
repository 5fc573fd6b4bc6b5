"""Names of data sets → labelled images that are read one by one.

A name is a folder that holds ``train/``, ``val/`` (or ``validation/``, ``valid/``) or ``test/`` with one folder per
class, a plain folder of classes to evaluate, or a timm data-set string: ``torch/cifar10``, ``hfds/…``. Sets that can
only be read in order, ``wds/`` and ``hfids/``, become streams.
"""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rsconvert.data.folders import SPLITS, Split, class_files, divide, images_below, is_plain, split_folder
from rsconvert.data.pairs import images_of_pairs
from rsconvert.data.samples import Samples
from rsconvert.data.streams import Stream, class_names, open_by_timm
from rsconvert.errors import ConfigError, DataError

__all__ = ["open_images", "open_split", "open_train_val"]

# The Hub's data sets say "validation"; "test" is no name of val, since nobody should tune on it unawares.
_HUB_SPLITS: dict[Split, tuple[str, ...]] = {**SPLITS, "val": ("validation", "val", "valid")}


def open_split(data: str, split: Split | float, *, root: str | None = None) -> Samples:
    """Open one split of a data set; ``root`` is where a data set named by a timm string lies or is cached.

    A plain folder of classes is a val set; ``split`` as a number is what `open_train_val` holds back of it as val.

    Raises:
        DataError: there is no such data set or split, it lacks images, or it can't be read by index.
        ConfigError: ``root`` is given together with a folder.
    """
    if not data:
        raise DataError("data is empty; a folder or a timm data-set string is needed.")
    if isinstance(split, float):
        return open_train_val(data, root=root, share=split)[1]
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
    _refuse_root(data, root)
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
    paths = images_below(base)
    return Samples(_Files(paths, [0] * len(paths)), str(base), None, paths)


def open_train_val(data: str, *, root: str | None = None, share: float | None = None) -> tuple[Samples, Samples]:
    """Open both splits of a data set; val may have some of the classes of train, which go by their names.

    Args:
        share: of a plain folder of classes, how much of each is train, between 0 and 1, see `divide`.
    Raises:
        DataError: as `open_split`, and when val has other classes than train.
        ConfigError: ``share`` is not between 0 and 1, or the data is no plain folder of classes; ``root`` is given with
            a folder.
    """
    if share is not None:
        return _divided(data, share, root)
    train, val = open_split(data, "train", root=root), open_split(data, "val", root=root)
    val = val.as_classes(train.classes)
    if train.classes != val.classes:
        raise DataError(
            f"{data} has other classes in train than in val ({_difference(train.classes or (), val.classes or ())}); "
            "val needs those of train, or some of them. Add or remove class folders."
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


def _refuse_root(data: str, root: str | None) -> None:
    if root is not None:
        raise ConfigError(f"data_root is {root}, which has no effect on the folder {data}. Leave it out.")


def _open_folder(folder: Path, split: Split) -> Samples:
    base = split_folder(folder, split)
    return _labelled(base, class_files(base))


def _labelled(base: Path, found: Mapping[str, list[str]]) -> Samples:
    paths = [path for files in found.values() for path in files]
    targets = [target for target, files in enumerate(found.values()) for _ in files]
    return Samples(_Files(paths, targets), str(base), tuple(found), paths)


def _divided(data: str, share: float, root: str | None) -> tuple[Samples, Samples]:
    if not 0 < share < 1:
        raise ConfigError(f"split is {share}; a number between 0 and 1 is accepted, the share of train.")
    base = Path(data)
    if not base.is_dir() or not is_plain(base):
        raise ConfigError(
            f"split is {share}, and {data} is no plain folder of classes, which alone is divided. Leave it out, or "
            "give a folder of class folders."
        )
    _refuse_root(data, root)
    first, second = divide(base, class_files(base), share)
    return _labelled(base, first), _labelled(base, second)


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
