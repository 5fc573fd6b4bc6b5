"""Names of data sets → images with a mask each, read one by one.

A name is a folder in one of three layouts (``train/`` with ``trainannot/``; ``images/train/`` with ``masks/train/``;
``train/images/`` with ``train/masks/``), a CSV file of pairs, or ``hfds/NAME`` with an image and a mask column.
"""

import csv
import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from timm.utils.misc import natural_key
from torch import Tensor
from torch.utils.data import Subset

from rsconvert.data.decoding import EncodedImage, UnreadableImageError
from rsconvert.data.folders import SPLITS, Split, files_below, image_endings
from rsconvert.data.masks import MaskReading, read_mask
from rsconvert.data.samples import Samples
from rsconvert.errors import DataError, one_line

__all__ = ["Pairs", "images_of_pairs", "open_pairs", "read_class_names"]

_SPLITS: dict[Split, tuple[str, ...]] = {**SPLITS, "train": ("train", "training"), "test": ("test", "testing")}
_IMAGES = ("images", "image", "img")
_MASKS = ("masks", "mask", "annotations", "annots", "labels", "labelTrainIds")
_MASK_ENDINGS = frozenset((".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm"))
_SUFFIXES = ("", "_mask", "_label", "_labels", "_L", "_seg")
_MASK_COLUMNS = ("mask", "annotation", "label", "semantic_mask", "segmentation_mask", "semantic_segmentation")
_LAYOUTS = "train/ with trainannot/, images/train/ with masks/train/, or train/images/ with train/masks/"


class Pairs(Samples):
    """Images by index, each with the class of every position; ``classes`` are their names, if these are known."""

    def __init__(
        self,
        source: Any,
        label: str,
        classes: tuple[str, ...] | None,
        reading: MaskReading,
        names: Sequence[tuple[str, str]] | None = None,
    ) -> None:
        super().__init__(source, label, classes, None if names is None else [image for image, _ in names])
        self.reading = reading
        self._masks = None if names is None else [mask for _, mask in names]

    def subset(self, indices: Sequence[int]) -> "Pairs":
        """Return the pairs of these indices, in their order."""
        names = None if self._masks is None else [(self.name(i), self._masks[i]) for i in indices]
        return Pairs(Subset(self._source, indices), self.label, self.classes, self.reading, names)  # type: ignore[arg-type]

    def as_classes(self, classes: tuple[str, ...] | None) -> "Pairs":
        return self  # masks hold the numbers of all classes

    def fingerprint(self) -> str:
        """Return a short hash of the images and of the masks, as of any samples."""
        masks = Samples(self._source, self.label, None, self._masks)
        return super().fingerprint() + ("" if self._masks is None else masks.fingerprint())

    def open_pair(self, index: int) -> tuple[EncodedImage | Tensor, Tensor]:
        """Return an image, whose file may not be decoded yet, and its mask (H, W).

        Raises:
            DataError: one of them can't be read, the mask has another size, or holds a value that is no class.
        """
        name = self.name(index)
        try:
            content, mask = self._source[index]
        except Exception as error:  # whatever the storage raises
            problem = f"{name} or its mask can't be read ({one_line(error)}). Replace or remove it."
            raise UnreadableImageError(problem) from error
        image = self.as_image(content, name)
        found = read_mask(mask, name if self._masks is None else self._masks[index], self.reading)
        if tuple(found.shape) != tuple(image.shape[1:]):
            own, other = ("×".join(map(str, shape[::-1])) for shape in (found.shape, tuple(image.shape[1:])))
            raise DataError(
                f"the mask of {name} is of {own} pixels, the image of {other}; both need one size. Replace one of them."
            )
        return image, found


class _PairFiles:
    """The encoded images and masks of one split."""

    def __init__(self, paths: Sequence[tuple[str, str]]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[bytes, bytes]:
        image, mask = self._paths[index]
        return Path(image).read_bytes(), Path(mask).read_bytes()


def open_pairs(
    data: str,
    split: Split,
    reading: MaskReading,
    *,
    class_names: str | None = None,
    root: str | None = None,
) -> Pairs:
    """Open one split of a data set of images with masks.

    Args:
        class_names: a file with the name of each class, one a line.
        root: where a set of the hub is cached.
    Raises:
        DataError: there is no such data set or split; an image has no mask; there are other names than classes.
    """
    names = None if class_names is None else read_class_names(class_names)
    if names is not None and reading.classes not in (None, len(names)):
        raise DataError(
            f"{class_names} names {len(names)} classes, the network has {reading.classes}; a name for each is needed. "
            "Correct the file, or convert with --num-classes."
        )
    if data.startswith("hfds/"):
        return _open_hub(data, split, reading, names, root)
    found = _from_table(Path(data), split) if data.endswith(".csv") else _from_folder(Path(data), split)
    if not found:
        raise DataError(f"{data} holds no images for {split}; at least one, with a mask, is needed.")
    return Pairs(_PairFiles(found), data, names, reading, found)


def images_of_pairs(data: str) -> list[str]:
    """Return the training images of a folder or table of pairs, without a look at the masks; none of another place."""
    path = Path(data)
    if data.endswith(".csv"):
        return [image for image, _ in _from_table(path, "train")]
    found = next((images for images, masks in _places(path, "train") if images.is_dir() and masks.is_dir()), None)
    images = [] if found is None else [str(image) for image in _files(found, image_endings())]
    return sorted(images, key=natural_key)


def read_class_names(path: str) -> tuple[str, ...]:
    """Return the names in a file, one a line, in the order of the classes.

    Raises:
        DataError: it can't be read, is empty, or names a class twice.
    """
    try:
        names = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"class names {path} can't be read ({one_line(error)}); a name a line is needed.") from error
    if not names or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        problem = "is empty" if twice is None else f"names {twice!r} twice"
        raise DataError(f"class names {path} {problem}; the name of each class, one a line, is needed.")
    return tuple(names)


def _from_folder(folder: Path, split: Split) -> list[tuple[str, str]]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; one with {_LAYOUTS}, a CSV file of pairs, or hfds/NAME is needed.")
    for images, masks in _places(folder, split):
        if images.is_dir() and masks.is_dir():
            return _matched(images, masks)
    raise DataError(f"{folder} holds no images with masks for {split}; {_LAYOUTS} is needed. Rename its folders.")


def _places(folder: Path, split: Split) -> Iterator[tuple[Path, Path]]:
    for name in _SPLITS[split]:
        yield folder / name, folder / f"{name}annot"
        for images, masks in itertools.product(_IMAGES, _MASKS):
            yield folder / images / name, folder / masks / name
            yield folder / name / images, folder / name / masks


def _matched(images: Path, masks: Path) -> list[tuple[str, str]]:
    """Pair the files below two folders by their names without endings, a mask's with one of the usual suffixes."""
    known = {_stem(path, masks): path for path in _files(masks, _MASK_ENDINGS)}
    pairs = []
    for image in sorted(_files(images, image_endings()), key=lambda path: natural_key(str(path))):
        stem = _stem(image, images)
        mask = next((known[stem + suffix] for suffix in _SUFFIXES if stem + suffix in known), None)
        if mask is None:
            raise DataError(
                f"{image} has no mask in {masks}; a file {stem}.png, or of another format without losses, is needed. "
                "Add it, or remove the image."
            )
        pairs.append((str(image), str(mask)))
    return pairs


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _files(folder: Path, endings: frozenset[str]) -> Iterator[Path]:
    yield from (path for path in map(Path, files_below(folder)) if path.suffix.lower() in endings)


def _from_table(path: Path, split: Split) -> list[tuple[str, str]]:
    """Return the pairs of a split in a CSV file with the columns image, mask, split, next to which the files lie."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # of Excel, too
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} can't be read ({one_line(error)}); a CSV file of pairs is needed.") from error
    if not rows or not {"image", "mask", "split"} <= rows[0].keys():
        columns = ", ".join(map(str, rows[0])) if rows else "none"
        raise DataError(f"{path} has the columns {columns}; image, mask and split (train, val or test) are needed.")
    for number, row in enumerate(rows, start=1):
        if empty := [column for column in ("image", "mask", "split") if not row[column]]:
            raise DataError(f"row {number} of {path} has no {empty[0]}; each needs image, mask and split. Complete it.")
    known = {name for names in _SPLITS.values() for name in names}
    if strange := [row["split"] for row in rows if row["split"] not in known]:
        raise DataError(f"{path} has the split {strange[0]!r}; {', '.join(sorted(known))} are accepted.")
    own = (row for row in rows if row["split"] in _SPLITS[split])
    pairs = [(str(path.parent / row["image"]), str(path.parent / row["mask"])) for row in own]
    if missing := [name for pair in pairs for name in pair if not Path(name).is_file()]:
        raise DataError(f"{missing[0]}, of {path}, is no file; the images and masks of all rows are needed.")
    return pairs


def _open_hub(data: str, split: Split, reading: MaskReading, names: tuple[str, ...] | None, root: str | None) -> Pairs:
    if importlib.util.find_spec("datasets") is None:
        raise DataError(f"{data} needs the package datasets, which is not installed. Run `pip install datasets`.")
    from datasets import load_dataset

    errors = []
    for name in _SPLITS[split]:
        try:
            table = load_dataset(data.removeprefix("hfds/"), split=name, cache_dir=root)
        except Exception as error:  # whatever the library and the network raise
            errors.append(error)
            continue
        return Pairs(_HubPairs(table, *_columns(table, data)), f"{data} {name}", names, reading)
    raise DataError(f"{data} can't be opened, split {split} ({one_line(errors[0])}). Check the name and data_root.")


def _columns(table: Any, data: str) -> tuple[str, str]:
    columns = list(table.column_names)
    mask = next((name for name in _MASK_COLUMNS if name in columns), None)
    if "image" not in columns or mask is None:
        raise DataError(
            f"{data} has the columns {', '.join(columns)}; image, and one of {', '.join(_MASK_COLUMNS)} is needed."
        )
    return "image", mask


class _HubPairs:
    """Pairs of Pillow images out of a table of the hub."""

    def __init__(self, table: Any, image: str, mask: str) -> None:
        self._table, self._image, self._mask = table, image, mask

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        row = self._table[index]
        return row[self._image], row[self._mask]
