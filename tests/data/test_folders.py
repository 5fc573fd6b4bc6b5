"""Folders as they are found: which folder is a split, a plain folder of classes, links and hidden folders."""

from pathlib import Path

import pytest
from PIL import Image

from rsconvert.data import folders, open_images, open_split, open_train_val
from rsconvert.data.folders import class_files, images_below, split_folder
from rsconvert.errors import ConfigError, DataError


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name, "PNG")
    return folder


def found(data: Path, split: str) -> list[tuple[str, int]]:
    samples = open_split(str(data), split)  # type: ignore[arg-type]
    return [(Path(samples.name(i)).relative_to(data).as_posix(), samples.read(i)[1]) for i in range(len(samples))]


def test_each_split_has_its_folder(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "valid/a/2.png", "test/a/3.png")
    assert found(tmp_path, "train") == [("train/a/1.png", 0)]
    assert found(tmp_path, "val") == [("valid/a/2.png", 0)]
    assert found(tmp_path, "test") == [("test/a/3.png", 0)]


def test_a_plain_folder_of_classes_is_its_own_val(tmp_path: Path) -> None:
    write(tmp_path, "b/1.png", "a/2.png", ".cache/3.png")
    assert found(tmp_path, "val") == [("a/2.png", 0), ("b/1.png", 1)]
    for split in ("train", "test"):
        with pytest.raises(DataError, match=f"has no folder {split}/; it needs one"):
            found(tmp_path, split)


@pytest.mark.parametrize("other", ["train", "test"])
def test_a_folder_with_another_split_is_no_plain_one(tmp_path: Path, other: str) -> None:
    write(tmp_path, f"{other}/a/1.png")
    with pytest.raises(DataError, match="has no folder val/ or validation/ or valid/"):
        split_folder(tmp_path, "val")


def test_val_may_have_some_of_the_classes_by_name(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "val/c/2.png", "val/a/2.png")
    train, val = open_train_val(str(tmp_path))
    assert val.classes == train.classes == ("a", "b", "c")
    assert [(Path(val.name(i)).parent.name, val.read(i)[1]) for i in range(2)] == [("a", 0), ("c", 2)]


def test_a_plain_folder_is_divided_by_the_names_of_its_files(tmp_path: Path) -> None:
    names = [f"{name}/{i}.png" for name in "ab" for i in range(100)]
    data = str(write(tmp_path / "photos", *names[:90], *names[100:]))
    train, val = open_train_val(data, share=0.8)
    parts = [{s.name(i).removeprefix(data): s.read(i)[1] for i in range(len(s))} for s in (train, val)]
    assert not parts[0].keys() & parts[1].keys()
    assert len(parts[0] | parts[1]) == 190
    assert 0.7 < len(train) / 190 < 0.9
    assert all(target == "ab".index(name[1]) for part in parts for name, target in part.items())
    held = open_split(data, 0.8)
    assert [held.name(i) for i in range(len(held))] == [val.name(i) for i in range(len(val))]
    write(tmp_path / "photos", *names[90:100])
    moved = (tmp_path / "photos").rename(tmp_path / "moved")
    for more, part in zip(open_train_val(str(moved), share=0.8), parts, strict=True):
        assert part.keys() <= {more.name(i).removeprefix(str(moved)) for i in range(len(more))}


def test_each_part_has_an_image_of_each_class(tmp_path: Path) -> None:
    data = str(write(tmp_path, *(f"{c}/{i}.png" for c in "abcdef" for i in range(2))))
    for share in (0.01, 0.99):
        train, val = open_train_val(data, share=share)
        assert [s.read(i)[1] for s in (train, val) for i in range(6)] == [*range(6)] * 2


def test_what_is_not_divided_is_named(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "plain/a/1.png", "plain/b/1.png", "plain/b/2.png")
    with pytest.raises(DataError, match="a holds 1 image; a class needs at least 2"):
        open_train_val(str(tmp_path / "plain"), share=0.5)
    with pytest.raises(DataError, match="Or divide a plain folder of classes by split"):
        open_train_val(str(tmp_path / "plain"))
    for data in (str(tmp_path), "torch/cifar10", str(tmp_path / "nowhere")):
        with pytest.raises(ConfigError, match="is no plain folder of classes, which alone is divided"):
            open_train_val(data, share=0.5)
    with pytest.raises(ConfigError, match=r"split is 1\.5; a number between 0 and 1"):
        open_split(str(tmp_path / "plain"), 1.5)


def test_a_link_that_leads_upwards_counts_no_image_again(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "a/deep/2.png")
    (tmp_path / "a" / "deep" / "up").symlink_to(tmp_path / "a")
    assert images_below(tmp_path / "a") == [str(tmp_path / "a" / name) for name in ("1.png", "deep/2.png")]
    write(tmp_path, "b/3.png")
    (tmp_path / "a" / "all").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to(tmp_path)
    names = {"a": ("1.png", "deep/2.png"), "b": ("3.png",)}
    expected = {name: [str(tmp_path / name / file) for file in files] for name, files in names.items()}
    assert class_files(tmp_path) == expected


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"b holds no images; a class folder needs at least one file that ends in"):
        class_files(tmp_path)


def test_one_line_counts_what_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "val/a/1.png", "val/b/2.jfif", "val/loose.png", "val/a/.hidden.mp4", "val/a/@eaDir/x.txt")
    for name in ("a/1.MP4", "a/2.mp4", "b/notes.txt", "b/Makefile", "b/\x1b[31m.c\x1b"):
        (tmp_path / "val" / name).touch()
    open_split(str(tmp_path), "val")
    (line,) = caplog.messages
    kinds = r"2 .mp4, 1 .c\x1b, 1 .txt, 1 images outside of the class folders, 1 without an ending"
    assert line == f"note: {tmp_path}/val: left out {kinds}"


def test_nothing_left_out_is_not_worth_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "a/1.png", ".DS_Store", "a/.thumb")
    open_split(str(tmp_path), "val")
    open_images(str(tmp_path))
    assert caplog.messages == []


def test_a_long_list_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "1.png", *(f"{i}.x{i % 7}" for i in range(70)))
    assert len(images_below(tmp_path)) == 1
    assert caplog.messages[0].endswith("10 .x4, 20 more")


@pytest.mark.parametrize("installed", [False, True])
def test_heic_is_an_image_where_it_can_be_read(
    tmp_path: Path, installed: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "reads_heif", lambda: installed)
    monkeypatch.setattr(folders, "image_endings", folders.image_endings.__wrapped__)
    write(tmp_path, "1.png", "2.HEIC")
    assert len(images_below(tmp_path)) == 1 + installed
    remedy = [f"note: {tmp_path}: left out 1 .heic; .heic needs the package pillow-heif (pip install pillow-heif)"]
    assert caplog.messages == ([] if installed else remedy)
