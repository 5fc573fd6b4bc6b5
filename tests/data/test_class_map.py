"""Class maps: the forms of the file, the order of the data, and one line for each mistake."""

import json
from pathlib import Path

import pytest

from rsconvert.data import read_class_map
from rsconvert.errors import DataError

CLASSES = ("n2", "n10", "sea lion, eared")


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
