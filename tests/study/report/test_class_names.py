from pathlib import Path

import pytest

from rsconvert import DataError
from rsconvert.study import read_class_names

CLASSES = ("n01", "n02")


@pytest.mark.parametrize(
    "text",
    [
        "n02\tgolf ball\nn01\ttench, Tinca tinca\n",
        "n01 tench, Tinca tinca\n\nn02   golf ball\nn03 other",
        '{"n01": "tench, Tinca tinca", "n02": "golf ball"}',
        "\ufeffn02\tgolf ball\r\nn01\t tench, Tinca tinca ",
    ],
)
def test_labels_come_in_the_order_of_the_classes(tmp_path: Path, text: str) -> None:
    (tmp_path / "names").write_text(text, encoding="utf-8")
    assert read_class_names(tmp_path / "names", CLASSES) == ("tench, Tinca tinca", "golf ball")


def test_a_class_may_have_blanks_before_a_tab(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("golf ball\tBall\n")
    assert read_class_names(tmp_path / "names", ["golf ball"]) == ("Ball",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("n01\ttench", "lack 'n02'"),
        ("n01", "a line is 'n01'"),
        ("{", "can't be read"),
        ("[" * 5 + "1", "a line is"),
        ("{" + '"a": {' * 5, "can't be read"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "names").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_class_names(tmp_path / "names", CLASSES)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_missing_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_class_names(tmp_path / "nowhere", CLASSES)
    with pytest.raises(DataError, match="need classes with names"):
        read_class_names(tmp_path / "nowhere", None)
