"""Measuring one model: classes as they are, refusals with reasons, and exactness that a mistake would break."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from rsconvert.compatibility import FIVE
from rsconvert.compatibility.check import all_names, count, family_of, measure
from rsconvert.errors import UnsupportedModelError
from rsconvert.models import create_model


@pytest.mark.parametrize(
    ("name", "parameters", "batchnorms"),
    [
        ("resnet18", 11_689_512, 20),
        ("convnext_atto", 3_695_520, 0),
        ("torchvision/resnet18", 11_689_512, 20),
        ("torchvision/regnet_y_400mf", 4_344_144, 53),  # its builder computes with tensors
    ],
)
def test_counting_needs_no_data(name: str, parameters: int, batchnorms: int) -> None:
    row = count(name)
    assert (row.parameters, row.batchnorms) == (parameters, batchnorms)


def test_a_model_without_batchnorm_is_not_run() -> None:
    row = measure("convnext_atto")
    assert (row.size_class, row.resolutions, row.seconds) == ("none", (), {})


def test_a_model_that_takes_all_sizes() -> None:
    row = measure("test_efficientnet", in_batches=True)
    assert (row.size_class, row.resolutions, row.refused) == ("A", FIVE, {})
    assert (row.batchnorms, row.found, row.unseen) == (13, {"graph": 13}, ())
    assert row.batches == {"224": True, "160": True, "96": True}
    assert (row.training["resolution"], row.training["same"]) == (96, True)
    assert set(row.seconds) == {"create", "convert", "forwards", "batches", "training"}


def test_a_model_with_position_tables_is_compared_with_one_built_for_each_size(monkeypatch) -> None:
    """A thin one: its builder takes the widths."""

    def thin(name: str, *, model_kwargs: Mapping[str, Any] | None = None) -> nn.Module:
        widths = {"embed_dim": (16,) * 3, "num_heads": (2,) * 3, "depth": (1,) * 3, "key_dim": 8}
        return create_model(name, model_kwargs={**widths, **(model_kwargs or {})})

    monkeypatch.setattr("rsconvert.compatibility.check.create_model", thin)
    row = measure("levit_128s", in_batches=True)
    assert (row.size_class, row.built_with, row.tables) == ("C", "img_size", {"attention_biases": 5})
    assert row.batches == {"224": True, "160": True, "96": True}
    assert row.training["same"]


def test_a_model_of_fixed_size_tells_what_works(tmp_path: Path) -> None:
    source = tmp_path / "fixed.py"
    source.write_text(
        "from torch import nn\n"
        "def build():\n"
        "    body = nn.Conv2d(3, 2, 8, stride=8), nn.BatchNorm2d(2), nn.Flatten()\n"
        "    return nn.Sequential(*body, nn.Linear(2 * 16 * 16, 3))\n"
    )
    row = measure(f"{source}:build", in_batches=True)
    assert (row.size_class, row.resolutions) == ("D", (128,))
    assert set(row.refused) == {"224", "192", "160", "96"}
    assert "3" in row.refused["96"]
    assert row.batches == {"128": True}
    assert row.training["same"]


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(UnsupportedModelError, match="resnet18"):
        measure("resnet1888")


def test_families_are_the_files_of_the_libraries() -> None:
    assert family_of("resnet18") == family_of("resnet18.a1_in1k") == "resnet"
    assert family_of("torchvision/resnet18") == "torchvision/resnet"
    assert family_of("torchvision/fasterrcnn_resnet50_fpn") == "torchvision/detection/faster_rcnn"
    assert family_of("mine.py:build") == "mine.py:build"


def test_quantized_models_are_left_out() -> None:
    names = all_names()
    assert {"resnet18", "torchvision/resnet18"} <= set(names)
    assert not any("quantized" in name for name in names)
    assert len(names) == len(set(names))
