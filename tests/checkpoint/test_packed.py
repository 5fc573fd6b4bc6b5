"""A quantized network comes back from its file with the same bits, and its weights take theirs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import rsconvert
from rsconvert.checkpoint import describe, read_metadata, subset
from rsconvert.checkpoint.packed import bytes_by_part
from rsconvert.errors import CheckpointError, UnsupportedModelError
from rsconvert.quantization import layout_of, packed_bytes, quantize_, quantized_convolutions
from rsconvert.surgery import SwitchableModel

SIDES = (64, 56, 48, 40, 32)


def outputs(net: SwitchableModel) -> list[Tensor]:
    torch.manual_seed(1)
    with torch.no_grad():
        return [net(torch.rand(2, 3, side, side)) for side in SIDES]


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], Any] = lambda tensors: None, **fields: Any) -> None:
    with safe_open(str(path), framework="pt") as file:
        facts = json.loads(file.metadata()["rsconvert"])
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt", "rsconvert": json.dumps({**facts, **fields})})


@pytest.fixture
def quantized(net: SwitchableModel) -> SwitchableModel:
    quantize_(net, "2/32")
    return net


@pytest.mark.parametrize(("bits", "bases"), [("2/32", "shared"), ("3/2", "shared"), ("4/4", "private")])
def test_what_is_saved_comes_back(net: SwitchableModel, tmp_path: Path, bits: str, bases: Any) -> None:
    quantize_(net, bits, activation_bases=bases)
    for quantizer in {id(m): m for m in net.running_modules() if type(m).__name__ == "ActivationQuantizer"}.values():
        quantizer.basis.mul_(1.1)
    rsconvert.save(net, tmp_path / "q.safetensors")
    again = rsconvert.load(tmp_path / "q.safetensors")
    assert layout_of(again) == layout_of(net)
    assert again.other_private_tensors() == net.other_private_tensors()
    expected = outputs(net)
    assert all(torch.equal(a, b) for a, b in zip(outputs(again), expected, strict=True))
    assert not again.restructured
    path = rsconvert.load(tmp_path / "q.safetensors", resolution=48)
    torch.manual_seed(1)
    images = [torch.rand(2, 3, side, side) for side in SIDES]
    assert torch.equal(path(images[2]), expected[2])
    rsconvert.save(again, tmp_path / "again.safetensors")
    one, other = (load_file(tmp_path / name) for name in ("q.safetensors", "again.safetensors"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert read_metadata(tmp_path / "q.safetensors") == read_metadata(tmp_path / "again.safetensors")


@pytest.mark.parametrize("bits", ["3/32", "2/2", "1/32"])
def test_other_bits_than_those_of_the_tensors_are_refused(
    quantized: SwitchableModel, tmp_path: Path, bits: str
) -> None:
    rsconvert.save(quantized, path := tmp_path / "q.safetensors")
    layout = dict.fromkeys(quantized_convolutions(quantized), "2/32")
    first = next(iter(layout))
    rewrite(path, quantized={**layout, first: bits})
    for read in (rsconvert.load, describe):
        with pytest.raises(CheckpointError, match=rf"quantized says {bits} of {first}, whose bases are \(\d+, 2\)"):
            read(path)
    rewrite(path, quantized={name: "2/32" for name in layout if name != first})
    for read in (rsconvert.load, describe):
        with pytest.raises(CheckpointError, match=f"quantized and its tensors disagree on {first}"):
            read(path)


def test_only_the_activations_of_quantized_layers_have_bases() -> None:
    names = ("conv.weight_codes", "conv.activation.basis", "head.activation.weight")
    sizes = bytes_by_part({name: torch.zeros(size) for name, size in zip(names, (1, 2, 4), strict=True)})
    assert sizes == {"codes": 4, "bases": 8, "float": 16}


def test_a_weight_takes_its_bits(quantized: SwitchableModel, tmp_path: Path) -> None:
    rsconvert.save(quantized, tmp_path / "q.safetensors")
    tensors, facts = load_file(tmp_path / "q.safetensors"), describe(tmp_path / "q.safetensors")
    convs = quantized_convolutions(quantized)
    assert {name for name in tensors if "weight_" in name} == {
        f"{name}.{key}" for name in convs for key in ("weight_codes", "weight_basis")
    }
    assert not {f"{name}.weight" for name in convs} & tensors.keys()
    codes = sum(packed_bytes(conv.weight.shape, 2) for conv in convs.values())
    assert facts["bytes_by_part"]["codes"] == codes
    assert facts["bytes_by_part"]["bases"] == sum(8 * len(conv.weight) for conv in convs.values())
    assert sum(facts["bytes_by_part"].values()) == sum(t.nbytes for t in tensors.values())
    assert facts["layers_by_bits"] == {"2/32": len(convs)}
    assert facts["format_version"] == 2


def test_a_float_network_has_version_1_still(net: SwitchableModel, tmp_path: Path) -> None:
    rsconvert.save(net, tmp_path / "f.safetensors")
    facts = read_metadata(tmp_path / "f.safetensors").fields
    assert facts["format_version"] == 1
    assert "quantized" not in facts


def test_a_part_and_a_subset(quantized: SwitchableModel, tmp_path: Path) -> None:
    small = subset(quantized, (48, 32))
    rsconvert.save(small, tmp_path / "s.safetensors")
    again = rsconvert.load(tmp_path / "s.safetensors")
    x = torch.ones(1, 3, 48, 48)
    assert torch.equal(again(x), quantized(x))


def test_a_given_model_is_left_alone(tied_net: SwitchableModel, tied: torch.nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="first shares its weight"):
        quantize_(tied_net, "2/32")
    quantize_(tied_net, "2/32", keep_float=["first", "second"])
    with pytest.warns(rsconvert.NamelessModelWarning):
        rsconvert.save(tied_net, tmp_path / "t.safetensors")
    before = list(tied.state_dict())
    again = rsconvert.load(tmp_path / "t.safetensors", tied)
    assert list(tied.state_dict()) == before
    assert layout_of(again) == {"stem": (2, 32)}
    assert torch.equal(again(torch.ones(1, 3, 48, 48)), tied_net(torch.ones(1, 3, 48, 48)))


def test_a_changed_weight_is_not_saved_as_another_one(quantized: SwitchableModel, tmp_path: Path) -> None:
    name, conv = next(iter(quantized_convolutions(quantized).items()))
    conv.weight.data.mul_(1.01)
    with pytest.raises(UnsupportedModelError, match=f"^{name}.weight was changed after it was quantized"):
        rsconvert.save(quantized, tmp_path / "q.safetensors")
    assert not (tmp_path / "q.safetensors").exists()


def first(tensors: dict[str, Tensor], suffix: str) -> str:
    return min(name for name in tensors if name.endswith(suffix))


@pytest.mark.parametrize(
    ("change", "fields", "match"),
    [
        (lambda t: t.pop(first(t, "weight_codes")), {}, "quantized and its tensors disagree on"),
        (lambda t: t.pop(first(t, "weight_basis")), {}, r"quantized says 2/32 of .*, whose bases are \(\) and \(\)"),
        (
            lambda t: t.update({first(t, "weight_codes"): torch.zeros(1).byte()}),
            {},
            "codes are torch.uint8",
        ),
        (lambda t: t.update({first(t, "weight_basis"): torch.zeros(1, 2)}), {}, "a basis is"),
        (lambda t: None, {"quantized": {"conv_stem": "2/99"}}, "damaged metadata .bits is '2/99'"),
        (lambda t: None, {"quantized": {"conv_stem": 2}}, "damaged metadata"),
        (lambda t: None, {"quantized": {"fc": "2/32"}}, "quantized and its tensors disagree on"),
        (lambda t: None, {"format_version": 1}, "format_version is 1 with quantized"),
        (lambda t: None, {"format_version": 3}, "reads versions up to 2"),
        (lambda t: None, {"quantized": None}, "quantized and its tensors disagree on"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(
    quantized: SwitchableModel, tmp_path: Path, change: Any, fields: dict[str, Any], match: str
) -> None:
    rsconvert.save(quantized, tmp_path / "q.safetensors")
    rewrite(tmp_path / "q.safetensors", change, **fields)
    with pytest.raises(CheckpointError, match=match) as caught:
        rsconvert.load(tmp_path / "q.safetensors")
    assert "\n" not in str(caught.value)
