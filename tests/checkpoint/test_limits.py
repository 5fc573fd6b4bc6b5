"""A header that asks for more than its file holds is refused before anything is built."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import rsconvert
from rsconvert.checkpoint.limits import check_entries
from rsconvert.checkpoint.tensors import Entry
from rsconvert.errors import CheckpointError

ALPHA = {"rsconvert.alpha": Entry("F32", (2,))}
NORM = {f"bn.{name}": Entry("F32", (4,)) for name in ("weight", "bias", "running_mean", "running_var")}


def rewrite(path: Path, tensors: dict[str, Tensor] | None = None, **fields: Any) -> None:
    with safe_open(str(path), framework="pt") as file:
        header = dict(file.metadata())
    facts = {**json.loads(header["rsconvert"]), **fields}
    save_file({**load_file(path), **(tensors or {})}, path, {"format": "pt", "rsconvert": json.dumps(facts)})


def refusal(path: Path) -> str:
    start = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        rsconvert.load(path)
    assert time.process_time() - start < 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"architecture": "vit_giant_patch14_dinov2", "num_classes": 0},
        {"architecture": "resnet18", "model_kwargs": {"layers": [1000, 1000, 1000, 1000]}},
        {"architecture": "resnet18", "model_kwargs": {"base_width": 100_000, "block_args": {}}},
        {"architecture": "resnet50", "model_kwargs": {"base_width": 100_000}},
        {"architecture": "swin_tiny_patch4_window7_224", "model_kwargs": {"depths": [1000, 1000, 1000, 1000]}},
        {"architecture": "vit_tiny_patch16_224", "model_kwargs": {"img_size": 1_000_000}},
    ],
)
def test_a_small_file_builds_no_large_network(saved: Path, fields: dict[str, Any]) -> None:
    rewrite(saved, **fields)
    refusal(saved)


def test_a_vast_network_names_the_reason(saved: Path) -> None:
    rewrite(saved, architecture="vit_giant_patch14_dinov2")
    assert "larger than its file" in refusal(saved)


def test_a_network_in_half_precision_is_within_the_limits(saved: Path) -> None:
    rewrite(saved, {key: t.half() for key, t in load_file(saved).items() if t.is_floating_point()})
    assert rsconvert.load(saved).conv_stem.weight.dtype == torch.float16


def test_mixed_types_of_a_file_are_refused(saved: Path) -> None:
    rewrite(saved, {"conv_stem.weight": load_file(saved)["conv_stem.weight"].half()})
    assert "conv_stem.weight is F16 where the others are F32" in refusal(saved)


def test_an_integer_of_another_type_is_refused(saved: Path) -> None:
    rewrite(saved, {"bn1.num_batches_tracked": torch.tensor(1, dtype=torch.int32)})
    assert "of another shape or kind" in refusal(saved)


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({}, r"no rsconvert\.alpha"),
        ({"rsconvert.alpha": Entry("F32", (3,))}, r"no rsconvert\.alpha"),
        ({"rsconvert.alpha": Entry("I64", (2,))}, r"no rsconvert\.alpha"),
        ({**ALPHA, "conv.weight": Entry("F8_E4M3", (4, 4))}, "F8_E4M3"),
        (
            {**ALPHA, "a.weight": Entry("F32", (4, 4)), "b.weight": Entry("BF16", (4, 4))},
            "floating tensors have one type",
        ),
        ({**ALPHA, **NORM, "conv.weight": Entry("F64", (4, 4))}, "floating tensors have one type"),
        ({**ALPHA, **NORM, "bn.at.32.weight": Entry("F16", (4,)), "conv.weight": Entry("F16", (4, 4))}, "one type"),
    ],
)
def test_tensors_that_can_not_run_together_are_refused(entries: dict[str, Entry], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check_entries(entries, (48, 32), None)


def test_norms_in_float32_may_stand_between_halves() -> None:
    halves = {"conv.weight": Entry("F16", (4, 4)), "bn.num_batches_tracked": Entry("I64", ())}
    halves |= {"norm.weight": Entry("F32", (4,)), "norm.bias": Entry("F32", (4,))}  # a LayerNorm
    check_entries({**ALPHA, **NORM, **halves, "bn.at.32.weight": Entry("F32", (4,))}, (48, 32), 4)
    with pytest.raises(ValueError, match="num_classes is 99, more than its"):
        check_entries({**ALPHA, **NORM, **halves}, (48, 32), 99)
