"""Data sets of images with masks: layouts, a table, the hub; what is missing or does not fit is named."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from rsconvert.data import MaskReading, open_pairs, read_class_names
from rsconvert.data.decoding import EncodedImage
from rsconvert.errors import DataError

READING = MaskReading(classes=3)


def put(image: Path, mask: Path | None, size: tuple[int, int] = (6, 4), value: int = 1) -> None:
    for path in (image, mask):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (value, 0, 0)).save(image)
    if mask is not None:
        Image.new("L", size, value).save(mask)


ADE = {"train": "training", "val": "validation"}
LAYOUTS: dict[str, Callable[[Path, str], tuple[Path, Path]]] = {
    "camvid": lambda f, s: (f / s, f / f"{s}annot"),
    "by kind": lambda f, s: (f / "images" / s, f / "masks" / s),
    "ade": lambda f, s: (f / "images" / ADE[s], f / "annotations" / ADE[s]),
    "by split": lambda f, s: (f / s / "images", f / s / "labels"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(tmp_path: Path, layout: str) -> None:
    for split, numbers in (("train", (2, 10)), ("val", (1,))):
        images, masks = LAYOUTS[layout](tmp_path, split)
        for number in numbers:
            put(images / "a" / f"{number}.png", masks / "a" / f"{number}_mask.png", value=number % 3)
    train, val = (open_pairs(str(tmp_path), split, READING) for split in ("train", "val"))
    assert [Path(train.name(i)).name for i in range(len(train))] == ["2.png", "10.png"]  # as people count
    image, mask = val.open_pair(0)
    assert isinstance(image, EncodedImage)
    assert (image.shape, mask.tolist()) == ((3, 4, 6), [[1] * 6] * 4)
    assert train.subset([1]).open_pair(0)[1].unique().tolist() == [1]
    assert train.classes is None


def test_a_table_names_pairs(tmp_path: Path) -> None:
    put(tmp_path / "x" / "1.png", tmp_path / "y" / "m.png")
    table = tmp_path / "pairs.csv"
    table.write_text("image,mask,split\nx/1.png,y/m.png,train\nx/1.png,y/m.png,val\n", encoding="utf-8")
    assert len(open_pairs(str(table), "val", READING)) == 1
    table.write_text("image,mask,split\nx/1.png,y/other.png,train\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"other\.png, of .*pairs.csv, is no file"):
        open_pairs(str(table), "train", READING)
    with pytest.raises(DataError, match="holds no images for val"):
        open_pairs(str(table), "val", READING)
    table.write_text("split,image,mask\nval,x/1.png,y/m.png\nval,x/1.png\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"row 2 of .*pairs\.csv has no mask; each needs image, mask and split"):
        open_pairs(str(table), "val", READING)
    table.write_text("image,mask,split\nx/1.png,y/m.png,val\n", encoding="utf-8-sig")  # as of Excel
    assert len(open_pairs(str(table), "val", READING)) == 1
    table.write_text("image,mask,split\nx/1.png,y/m.png,val\nx/1.png,y/m.png,trian\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs\.csv has the split 'trian'; test, testing, train, training, val"):
        open_pairs(str(table), "val", READING)
    table.write_text("picture,mask\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match="columns picture, mask; image, mask and split"):
        open_pairs(str(table), "val", READING)


def test_a_missing_mask_another_size_and_another_class_are_named(tmp_path: Path) -> None:
    put(tmp_path / "train" / "a.png", tmp_path / "trainannot" / "a.png")
    put(tmp_path / "train" / "b.png", None)
    with pytest.raises(DataError, match=r"b\.png has no mask in .*trainannot; a file b\.png"):
        open_pairs(str(tmp_path), "train", READING)
    put(tmp_path / "train" / "b.png", tmp_path / "trainannot" / "b.png", size=(5, 4))
    put(tmp_path / "train" / "c.png", tmp_path / "trainannot" / "c.png", value=7)
    pairs = open_pairs(str(tmp_path), "train", READING)
    with pytest.raises(DataError, match=r"the mask of .*b\.png is of 5×4 pixels, the image of 6×4"):
        pairs.open_pair(1)
    with pytest.raises(DataError, match=r"mask .*trainannot.c\.png has the value 7; 0 to 2"):
        pairs.open_pair(2)
    (tmp_path / "trainannot" / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png or its mask can't be read"):
        pairs.open_pair(0)


def test_a_folder_without_pairs_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images with masks for train; train/ with trainannot/"):
        open_pairs(str(tmp_path), "train", READING)
    with pytest.raises(DataError, match="is no folder"):
        open_pairs(str(tmp_path / "none"), "train", READING)


def test_classes_have_names(tmp_path: Path) -> None:
    put(tmp_path / "train" / "a.png", tmp_path / "trainannot" / "a.png")
    names = tmp_path / "names.txt"
    names.write_text("sky\nroad sign\n\ncar\n", encoding="utf-8")
    assert open_pairs(str(tmp_path), "train", READING, class_names=str(names)).classes == ("sky", "road sign", "car")
    with pytest.raises(DataError, match="names 3 classes, the network has 4"):
        open_pairs(str(tmp_path), "train", MaskReading(classes=4), class_names=str(names))
    names.write_text("sky\nsky\n", encoding="utf-8")
    with pytest.raises(DataError, match="names 'sky' twice"):
        read_class_names(str(names))
    with pytest.raises(DataError, match="can't be read"):
        read_class_names(str(tmp_path / "none.txt"))


class Table(list[dict[str, object]]):
    @property
    def column_names(self) -> list[str]:
        return list(self[0])


def test_a_set_of_the_hub_has_an_image_and_a_mask_column(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"image": Image.new("RGB", (3, 2)), "annotation": Image.fromarray(np.ones((2, 3), np.uint8))}
    held = {"train": Table([row]), "validation": Table([{"image": 1, "caption": 2}])}
    module = ModuleType("datasets")
    module.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    module.load_dataset = lambda name, split, cache_dir: held[split]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    image, mask = open_pairs("hfds/someone/scenes", "train", READING).open_pair(0)
    assert isinstance(image, torch.Tensor)
    assert (image.shape, mask.unique().tolist()) == ((3, 2, 3), [1])
    with pytest.raises(DataError, match="has the columns image, caption; image, and one of mask"):
        open_pairs("hfds/someone/scenes", "val", READING)
