"""Failures of foreign builders, each in one line; unfilled builds: no draw, no fill, but every buffer."""

from pickle import UnpicklingError

import pytest
import timm
import torch
from torch import nn

from rsconvert.errors import CheckpointError, ConfigError, UnsupportedModelError, first_line, one_line
from rsconvert.models import create_model
from rsconvert.models.builders import (
    built,
    check_num_classes,
    check_reachable,
    classes_argument,
    unfilled,
    unknown_model,
)


def failing(error: BaseException):
    def build():
        raise error

    return build


def test_a_result_passes() -> None:
    assert built("name", lambda: 3) == built("name", lambda: 3, fetches=True) == 3


@pytest.mark.parametrize("error", [ValueError("bad\nworse"), KeyError("key"), RuntimeError(), SystemExit(2)])
def test_a_builder_that_fails(error: BaseException) -> None:
    with pytest.raises(UnsupportedModelError, match=f"name can't be built: {type(error).__name__}: ") as raised:
        built("name", failing(error))
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [OSError("no route\nat all"), RuntimeError("hash"), ValueError()])
def test_a_download_that_fails(error: Exception) -> None:
    with pytest.raises(CheckpointError, match="the pretrained weights of name are unavailable") as raised:
        built("name", failing(error), fetches=True)
    assert "\n" not in str(raised.value)


def test_a_wrong_argument_is_no_matter_of_the_network() -> None:
    with pytest.raises(UnsupportedModelError, match="name can't be built: TypeError: no such argument"):
        built("name", failing(TypeError("no such argument")), fetches=True)


def test_a_hub_that_is_out_of_reach_is_noticed_where_the_cache_holds_nothing(monkeypatch, tmp_path) -> None:
    asked: list[tuple[str, float]] = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def ask(url: str, *, timeout: float) -> None:
        asked.append((url, timeout))
        raise ConnectionError("no route to host")

    monkeypatch.setattr("rsconvert.models.builders.get_hf_file_metadata", ask)
    with pytest.raises(ConnectionError):
        check_reachable("timm/resnet10t.c3_in1k", "config.json", "model.safetensors")
    with pytest.raises(
        CheckpointError, match="weights of resnet10t are unavailable: ConnectionError: no route to host;"
    ):
        create_model("resnet10t", pretrained=True)
    assert [url.endswith("timm/resnet10t.c3_in1k/resolve/main/config.json") for url, _ in asked] == [True, True]
    assert all(seconds <= 5 for _, seconds in asked)
    held = tmp_path / "models--timm--resnet10t.c3_in1k"
    for name in ("snapshots/abc/model.safetensors", "refs/main"):
        (held / name).parent.mkdir(parents=True)
        (held / name).write_text("abc")
    check_reachable("timm/resnet10t.c3_in1k", "config.json", "model.safetensors")
    with pytest.raises(ConnectionError):
        check_reachable("timm/resnet10t.c3_in1k@v2", "config.json", "model.safetensors")


@pytest.mark.parametrize("fetches", [False, True])
def test_an_error_of_ours_keeps_its_message(fetches: bool) -> None:
    with pytest.raises(UnsupportedModelError, match=r"^ours$"):
        built("name", failing(UnsupportedModelError("ours")), fetches=fetches)


def test_numbers_of_classes() -> None:
    for number in (None, 0, 10):
        check_num_classes(number)
    for wrong in (-1, 1.0, "1", True):
        with pytest.raises(ConfigError, match=f"num_classes is {wrong!r}; "):
            check_num_classes(wrong)


def test_small_parts() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == ""
    assert first_line(UnpicklingError("do trust it")) == "it holds something else than tensors and plain values"
    assert one_line(ValueError("one\n two"), with_class=True) == "ValueError: one two"
    assert one_line(ValueError(), with_class=True) == one_line(ValueError()) == "ValueError"
    assert classes_argument(None) == {}
    assert classes_argument(0) == {"num_classes": 0}
    assert "Did you mean resnet50" in str(unknown_model("resnet5O"))


def test_parameters_are_not_drawn_and_buffers_are_computed() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    with unfilled():
        model = timm.create_model("levit_128s")
        layer = nn.Linear(50, 50)
    assert torch.equal(torch.rand(1), wanted)
    filled = timm.create_model("levit_128s")
    assert model.state_dict().keys() == filled.state_dict().keys()
    for (name, buffer), (_, other) in zip(model.named_buffers(), filled.named_buffers(), strict=True):
        assert torch.equal(buffer, other), name
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight.shape == (50, 50)


def test_tensors_that_are_no_parameters_are_filled() -> None:
    with unfilled():
        assert torch.equal(torch.empty(3).fill_(2.0), torch.full((3,), 2.0))
        assert nn.init.ones_(torch.empty(2)).tolist() == [1.0, 1.0]


def test_outside_everything_is_drawn_again() -> None:
    with unfilled():
        pass
    assert nn.init.ones_(nn.Parameter(torch.empty(2))).tolist() == [1.0, 1.0]
