"""Samples by index and class maps: an error names what is wrong in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsconvert.data.decoding import EncodedImage
from rsconvert.data.samples import Samples, read_class_map
from rsconvert.errors import DataError

CLASSES = ("n2", "n10", "sea lion, eared")


def test_a_file_is_opened_before_it_is_decoded(tmp_path):
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "a.png")
    for content in ((tmp_path / "a.png").read_bytes(), (tmp_path / "a.png").open("rb")):
        image, target = Samples([(content, 1)], "set", ("cat", "dog")).open(0)
        assert isinstance(image, EncodedImage)
        assert (image.shape, target) == ((3, 2, 3), 1)
        assert image.decode()[:, 0, 0].tolist() == [1, 2, 3]


def test_a_picture_comes_as_pixels():
    samples = Samples([(Image.new("RGB", (3, 2)), 0)], "set", None)
    assert torch.equal(samples.open(0)[0], torch.zeros((3, 2, 3), dtype=torch.uint8))
    assert torch.equal(samples.read(0)[0], samples.open(0)[0])


@pytest.mark.parametrize("content", [None, "a path", np.zeros((4, 4, 3), dtype=np.uint8), b"no image"])
def test_what_is_no_image_is_named(content):
    with pytest.raises(DataError, match=r"^set\[0\] can't be ") as caught:
        Samples([(content, 0)], "set", None).read(0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", [2, -1, None, 0.5, "cat", [0, 1]])
def test_a_target_that_is_no_class_is_named(target):
    samples = Samples([(Image.new("RGB", (2, 2)), target)], "set train", ("cat", "dog"))
    with pytest.raises(DataError, match=r"^set train\[0\] has the target .*; a target is one of 0 to 1\."):
        samples.read(0)


def test_without_class_names_any_count_is_a_target():
    samples = Samples([(Image.new("RGB", (2, 2)), 1000), (Image.new("RGB", (2, 2)), -1)], "set", None)
    assert samples.read(0)[1] == 1000
    with pytest.raises(DataError, match="an integer from 0 upwards"):
        samples.read(1)


def written(folder: Path, text: str) -> Path:
    path = folder / "map"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"n10": 7, "n2": 482, "more": 7, "sea lion, eared": 0}, indent=1),
        "n10 7\nn2\t482\n\nmore 7\nsea lion, eared 0\n",
        "n10,7\r\nn2 , 482\r\nmore,7\r\nsea lion, eared, 0",
        "\ufeffn10 7\nn2 482\nsea lion, eared   0",
    ],
    ids=["json", "blanks", "commas", "byte order mark"],
)
def test_indices_come_in_the_order_of_the_classes(tmp_path: Path, text: str) -> None:
    assert read_class_map(written(tmp_path, text), CLASSES) == (482, 7, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n2 1\nn10 2", r"lacks 'sea lion, eared'; each of the 3 classes"),
        ("", "lacks 'n2'"),
        ("n2 1\nn10 1\nsea lion, eared 2", "gives 1 to 'n2' and 'n10'"),
        ("n2 1\nn2 2", "names 'n2' twice"),
        ('{"n2": 1, "n2": 2}', "names 'n2' twice"),
        ("n2 -1", "gives '-1' to 'n2'; .* whole number of 0 or more"),
        ("n2 1.0", "gives '1.0' to 'n2'"),
        ("n2 ²", "gives '²' to 'n2'"),
        ('{"n2": -1}', "gives -1 to 'n2'"),
        ('{"n2": 1.0}', r"gives 1\.0 to 'n2'"),
        ('{"n2": true}', "gives True to 'n2'"),
        ('{"n2": "1"}', "gives '1' to 'n2'"),
        ('{"n2": {"a": 1}}', "gives .* to 'n2'"),
        ("n2 1\nn10\n", r"can't be read \(line 2 is 'n10'\)"),
        ('{"n2": 1', "can't be read"),
        ('{"n2": ' + "[" * 100_000, "can't be read"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=expected) as caught:
        read_class_map(path, CLASSES)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "map").write_bytes(b"\xff\xd8\xff\xe0")
    for path in (tmp_path / "map", tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="can't be read"):
            read_class_map(path, CLASSES)


def test_data_without_names_can_not_be_mapped(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs classes with names; the data has none"):
        read_class_map(written(tmp_path, "n2 1"), None)


def test_targets_follow_the_names_of_more_classes() -> None:
    pictures = [(Image.new("RGB", (2, 2)), target) for target in (0, 1, 2)]
    samples = Samples(pictures, "set", ("a", "c"), ["0.png", "1.png", "2.png"])
    more = samples.as_classes(("c", "b", "a"))
    assert more.classes == ("c", "b", "a")
    assert [more.read(i)[1] for i in range(2)] == [2, 0]
    assert more.name(1) == "1.png"
    with pytest.raises(DataError, match=r"2\.png has the target 2; a target is one of 0 to 1"):
        more.read(2)


@pytest.mark.parametrize("classes", [None, ("a", "c"), ("a", "b"), ("c", "a")])
def test_other_classes_leave_the_targets(classes: tuple[str, ...] | None) -> None:
    samples = Samples([(Image.new("RGB", (2, 2)), 1)], "set", ("a", "c"))
    assert samples.as_classes(classes) is samples
    assert Samples([], "set", None).as_classes(("a",)).classes is None
