"""Failures of foreign builders, each in one line."""

import pytest

from rsconvert.errors import CheckpointError, ConfigError, UnsupportedModelError, first_line
from rsconvert.models.builders import built, check_num_classes, classes_argument, downloaded, unknown_model


def failing(error: BaseException):
    def build():
        raise error

    return build


def test_a_result_passes() -> None:
    assert built("name", lambda: 3) == downloaded("name", lambda: 3) == 3


@pytest.mark.parametrize("error", [ValueError("bad\nworse"), KeyError("key"), RuntimeError(), SystemExit(2)])
def test_a_builder_that_fails(error: BaseException) -> None:
    with pytest.raises(UnsupportedModelError, match=f"name can't be built: {type(error).__name__}: ") as raised:
        built("name", failing(error))
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [OSError("no route\nat all"), RuntimeError("hash"), ValueError()])
def test_a_download_that_fails(error: Exception) -> None:
    with pytest.raises(CheckpointError, match="the pretrained weights of name can't be had") as raised:
        downloaded("name", failing(error))
    assert "\n" not in str(raised.value)


def test_a_wrong_argument_is_no_matter_of_the_network() -> None:
    with pytest.raises(UnsupportedModelError, match="name can't be built: TypeError: no such argument"):
        downloaded("name", failing(TypeError("no such argument")))


def test_an_error_of_ours_keeps_its_message() -> None:
    with pytest.raises(UnsupportedModelError, match=r"^ours$"):
        built("name", failing(UnsupportedModelError("ours")))


def test_numbers_of_classes() -> None:
    for number in (None, 0, 10):
        check_num_classes(number)
    for wrong in (-1, 1.0, "1", True):
        with pytest.raises(ConfigError, match=f"num_classes is {wrong!r}; "):
            check_num_classes(wrong)


def test_small_parts() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == ""
    assert classes_argument(None) == {}
    assert classes_argument(0) == {"num_classes": 0}
    assert "Did you mean resnet50" in unknown_model("resnet5O")
