"""Names of data sets → samples: what is found, in which order, and what is said when something is missing."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsconvert.data.sets import open_images, open_split, open_train_val
from rsconvert.errors import ConfigError, DataError


def write_image(path, grey=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (grey, grey, grey)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Classes 9 and 10 (natural order), two images each in train and one in val; the grey tells them apart."""
    for name, grey in (("9", 90), ("10", 100)):
        write_image(tmp_path / "train" / name / "2.png", grey + 2)
        write_image(tmp_path / "train" / name / "10.PNG", grey + 3)
        write_image(tmp_path / "val" / name / "1.png", grey + 1)
    return tmp_path


def contents(samples):
    return [(int(image[0, 0, 0]), target) for image, target in map(samples.read, range(len(samples)))]


def test_a_folder_is_read_in_natural_order(folder):
    train, val = open_train_val(str(folder))
    assert train.classes == val.classes == ("9", "10")
    assert contents(train) == [(92, 0), (93, 0), (102, 1), (103, 1)]
    assert contents(val) == [(91, 0), (101, 1)]
    assert train.name(1) == str(folder / "train" / "9" / "10.PNG")
    image, target = train.read(0)
    assert (image.shape, image.dtype, type(target)) == ((3, 4, 5), torch.uint8, int)


def test_validation_is_another_name_for_val(folder):
    (folder / "val").rename(folder / "validation")
    assert len(open_split(str(folder), "val")) == 2


def test_hidden_and_foreign_files_are_passed_over(folder):
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "README.txt").write_text("a word")
    (folder / "train" / "9" / "notes.txt").write_text("a word")
    (folder / "train" / "9" / "._2.png").write_text("what an archive leaves behind")
    assert len(open_split(str(folder), "train")) == 4


def test_images_may_lie_deeper_in_their_class(folder):
    write_image(folder / "train" / "10" / "more" / "0.png", 109)
    assert (109, 1) in contents(open_split(str(folder), "train"))


def test_symbolic_links_are_followed(folder, tmp_path):
    linked = tmp_path / "linked"
    (linked / "train" / "10").mkdir(parents=True)
    (linked / "train" / "9").symlink_to(folder / "train" / "9", target_is_directory=True)
    (linked / "train" / "10" / "x.png").symlink_to(folder / "train" / "10" / "2.png")
    assert contents(open_split(str(linked), "train")) == [(92, 0), (93, 0), (102, 1)]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"/nowhere does not exist; data is a folder with train/ and val/"):
        open_split(str(tmp_path / "nowhere"), "train")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="/file is not a folder"):
        open_split(str(tmp_path / "file"), "train")


def test_a_missing_split_is_named(folder):
    (folder / "val").rename(folder / "test")
    with pytest.raises(DataError, match="has no folder val/ or validation/"):
        open_train_val(str(folder))


def test_a_split_without_class_folders_is_named(tmp_path):
    write_image(tmp_path / "train" / "a.png")
    with pytest.raises(DataError, match="train has no class folders"):
        open_split(str(tmp_path), "train")


def test_an_empty_class_folder_is_named(folder):
    (folder / "train" / "11").mkdir()
    with pytest.raises(DataError, match=r"train/11 holds no images; .*\.jpeg .* Fill or remove it\.$"):
        open_split(str(folder), "train")


def test_root_beside_a_folder_is_refused(folder):
    with pytest.raises(ConfigError, match="has no effect on the folder"):
        open_split(str(folder), "train", root="/elsewhere")
    with pytest.raises(ConfigError, match="has no effect on the folder"):
        open_split(str(folder / "train"), 0.5, root="/elsewhere")
    with pytest.raises(ConfigError, match="has no effect on the folder"):
        open_train_val(str(folder / "train"), root="/elsewhere", share=0.5)


def test_other_classes_in_val_are_listed(folder):
    for name in ("a", "b", "c", "d"):
        write_image(folder / "train" / name / "1.png")
    write_image(folder / "val" / "z" / "1.png")
    with pytest.raises(DataError, match=r"\(4 only in train: a, b, c, …; 1 only in val: z\)"):
        open_train_val(str(folder))


@pytest.mark.parametrize("damage", ["truncate", "unlink"])
def test_an_unreadable_file_is_named_not_replaced(folder, damage):
    samples, path = open_split(str(folder), "train"), folder / "train" / "10" / "2.png"
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:50])
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"^\S+/10/2\.png can't be") as caught:
        samples.read(2)
    assert "\n" not in str(caught.value)
    assert samples.read(3)[1] == 1


@pytest.mark.parametrize("data", ["tfds/name", "TFDS/name"])
def test_tensorflows_sets_are_refused(data):
    with pytest.raises(DataError, match=r"is read by TensorFlow; a folder, torch/…, hfds/…, hfids/…, wds/… are supp"):
        open_split(data, "train")


@pytest.mark.parametrize(("data", "package"), [("wds/", "webdataset"), ("hfids/name", "datasets")])
def test_a_stream_without_its_package_is_one_line(data, package, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setattr("timm.data.readers.reader_wds.wds", None)
    with pytest.raises(DataError, match=rf"{data} can't be opened, split train \(.*{package}") as caught:
        open_split(data, "train", root="somewhere")
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the package datasets.* Run `pip install datasets`"):
        open_split("hfds/name", "train")


def test_the_hub_reader_is_read_without_replacements(monkeypatch, tmp_path):
    """The split is asked for by the Hub's names, and each row comes from timm's reader, not from its ImageDataset."""
    write_image(tmp_path / "a.png", 7)
    asked = []

    class Reader:
        def __init__(self):
            self.class_to_idx = {"cat": 0, "dog": 1}

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return open(tmp_path / ("a.png", "missing.png")[index], "rb"), np.int64(index)

    class Dataset:
        reader = Reader()

    def create_dataset(data, root, split):
        asked.append((data, root, split))
        if split != "val":
            raise ValueError(f"Unknown split {split}")
        return Dataset()

    monkeypatch.setattr("rsconvert.data.streams.create_dataset", create_dataset)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    samples = open_split("hfds/me/Photos", "val", root="cache")
    assert asked == [("hfds/me/Photos", "cache", "validation"), ("hfds/me/Photos", "cache", "val")]
    assert (samples.classes, contents_of_first(samples)) == (("cat", "dog"), (7, 0))
    with pytest.raises(DataError, match=r"^hfds/me/Photos val\[1\] can't be read \(.*missing\.png"):
        samples.read(1)


def contents_of_first(samples):
    image, target = samples.read(0)
    return int(image[0, 0, 0]), target


def write_mnist(root):
    """Three images of 2 × 2 in MNIST's file format."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        pixels = bytes([5] * 4 + [6] * 4 + [7] * 4)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, 3, 2, 2) + pixels)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, 3) + bytes([4, 0, 9]))


def test_a_torchvision_set_is_read_by_timms_name(tmp_path):
    write_mnist(tmp_path)
    train, val = open_train_val("torch/mnist", root=str(tmp_path))
    assert (len(train), len(val), len(train.classes)) == (3, 3, 10)
    assert contents(train) == [(5, 4), (6, 0), (7, 9)]
    assert train.read(0)[0].shape == (3, 2, 2)
    assert train.name(2) == "torch/mnist train[2]"


def test_torchvisions_folders_are_decoded_from_bytes(folder):
    samples = open_split("torch/image_folder", "train", root=str(folder))
    assert samples.classes == ("10", "9")  # torchvision's own order
    (folder / "train" / "10" / "2.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"torch/image_folder train\[1\] can't be decoded \(the file is empty\)"):
        samples.read(1)


def test_a_torchvision_set_needs_root():
    with pytest.raises(DataError, match=r"torch/mnist needs the folder .* Give it by data_root\."):
        open_split("torch/mnist", "train")


@pytest.mark.parametrize("data", ["torch/mnist", "torch/unheard_of"])
def test_a_set_that_is_not_there_gives_one_line(data, tmp_path):
    with pytest.raises(DataError, match=f"^{data} can't be opened, split train") as caught:
        open_split(data, "train", root=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_images_need_no_classes(tmp_path):
    for name, grey in (("2.png", 2), ("10.png", 10), ("deep/er/1.png", 1)):
        write_image(tmp_path / name, grey)
    (tmp_path / "notes.txt").write_text("a word")
    samples = open_images(str(tmp_path))
    assert samples.classes is None
    assert contents(samples) == [(2, 0), (10, 0), (1, 0)]
    assert len(open_images(str(tmp_path / "deep"))) == 1


def test_images_are_those_of_train_if_there_is_one(folder):
    write_image(folder / "cover.png")
    samples = open_images(str(folder))
    assert [grey for grey, _ in contents(samples)] == [92, 93, 102, 103]
    assert samples.name(0) == str(folder / "train" / "9" / "2.png")


def test_images_that_are_not_there_are_refused(folder):
    with pytest.raises(DataError, match="does not exist"):
        open_images(str(folder / "nowhere"))
    with pytest.raises(DataError, match="wds/x can't be opened"):
        open_images("wds/x")
    with pytest.raises(ConfigError, match="data_root"):
        open_images(str(folder), root="elsewhere")


def test_a_subset_keeps_names_classes_and_its_own_order(folder):
    train = open_split(str(folder), "train")
    some = train.subset([3, 0])
    assert contents(some) == [(103, 1), (92, 0)]
    assert some.classes == train.classes
    assert [some.name(i) for i in range(2)] == [train.name(3), train.name(0)]
    (folder / "train" / "9" / "2.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"9.2\.png"):
        some.read(1)


def test_folders_as_they_are_found(tmp_path: Path) -> None:
    """Hidden folders and links that lead upwards count no image; names that differ in case alone have an order."""
    for name in ("Cat/1.jfif", "Cat/01.png", "cat/1.jpe", ".ipynb_checkpoints/1.png", "@eaDir/1.png", "__MACOSX/1.png"):
        file = tmp_path / "train" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(file, "PNG")
    (tmp_path / "train" / "Cat" / "again").symlink_to(tmp_path / "train" / "Cat")
    (tmp_path / "train" / "Cat" / ".git").mkdir()
    (tmp_path / "train" / "Cat" / ".git" / "2.png").touch()
    (tmp_path / "train").rename(tmp_path / "valid")
    found = open_split(str(tmp_path), "val")
    assert found.classes == ("Cat", "cat")
    names = [Path(found.name(i)).relative_to(tmp_path / "valid").as_posix() for i in range(len(found))]
    assert names == ["Cat/1.jfif", "Cat/01.png", "cat/1.jpe"]
    assert [found.read(i)[1] for i in range(3)] == [0, 0, 1]
