"""The header says what the specification promises; one that does not is refused in one line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import rsconvert
from rsconvert.checkpoint import describe, read_metadata
from rsconvert.data import Preprocessing
from rsconvert.errors import CheckpointError
from rsconvert.models import Task
from rsconvert.surgery import Measured, SwitchableModel

ROW = {"resolution": 64, "form": "plain", "batch_size": 1, "amp": "off", "multiply_adds": 9, "latency_ms": 1.5}

INT8 = {
    "images": 2,
    "ranges": {side: {"x": [-1.5, 2.0]} for side in ("64", "48", "32")},
    "shifts": {side: {"bn": [0.5, -0.25]} for side in ("64", "48", "32")},
}


def header_of(path: Path) -> dict[str, str]:
    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata())


def rewrite(path: Path, text: str | None = None, **fields: Any) -> None:
    """Write a file again with other metadata: a whole text, or fields, of which ``...`` are left out."""
    facts = {**json.loads(header_of(path)["rsconvert"]), **fields}
    text = json.dumps({key: value for key, value in facts.items() if value is not ...}) if text is None else text
    save_file(load_file(path), path, {"format": "pt", "rsconvert": text})


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        rsconvert.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_the_header_is_that_of_the_specification(net: SwitchableModel, tmp_path: Path) -> None:
    preprocessing = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), interpolation="bicubic", crop_pct=0.9)
    net.source = replace(
        net.source,
        preprocessing=preprocessing,
        weights="here",
        new_classifier=("classifier.weight",),
        class_names=("a", "b", "c", "d", "ü"),
        training={"epochs": 4, "lr": 0.1},
        licence="mit",
    )
    net.measured = Measured(cascade={"stages": [48, 64], "thresholds": [0.75], "seed": 0}, int8=INT8)
    rsconvert.save(net, tmp_path / "x.safetensors")
    header = header_of(tmp_path / "x.safetensors")
    assert header.keys() == {"format", "rsconvert"}
    assert header["format"] == "pt"
    assert json.loads(header["rsconvert"]) == {
        "format_version": 1,
        "architecture": "test_efficientnet",
        "num_classes": 5,
        "resolutions": [64, 48, 32],
        "native": 64,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "images": [{"position": 0, "name": "x", "ndim": 4, "axes": [-2, -1], "channels": [-3, 3]}],
        "private": True,
        "source": "here",
        "license": "mit",
        "new_classifier": ["classifier.weight"],
        "class_names": ["a", "b", "c", "d", "ü"],
        "training": {"epochs": 4, "lr": 0.1},
        "cascade": {"stages": [48, 64], "thresholds": [0.75], "seed": 0},
        "int8": INT8,
    }
    again = rsconvert.load(tmp_path / "x.safetensors")
    assert (again.source, again.measured) == (net.source, net.measured)


def test_crop_pct_may_differ_per_resolution(net: SwitchableModel, tmp_path: Path) -> None:
    net.source = replace(net.source, preprocessing=Preprocessing(crop_pct=(0.95, 0.9, 1.0)))
    rsconvert.save(net, tmp_path / "x.safetensors")
    assert rsconvert.load(tmp_path / "x.safetensors").source.preprocessing.crop_pct == (0.95, 0.9, 1.0)


def test_what_json_can_not_tell_is_not_saved(net: SwitchableModel, tmp_path: Path) -> None:
    for source in (
        replace(net.source, model_kwargs={"act_layer": torch.nn.ReLU}),
        replace(net.source, training={"when": object()}),
        replace(net.source, preprocessing=Preprocessing(crop_pct=(0.9, 0.9))),
    ):
        net.source = source
        with pytest.raises(CheckpointError, match="plain values"):
            rsconvert.save(net, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_fields_of_others_and_null_are_ignored(saved: Path) -> None:
    rewrite(saved, new_field={"x": 1}, class_names=None, private=...)
    held = read_metadata(saved)
    assert (held.resolutions, held.private) == ((64, 48, 32), True)
    assert "class_names" not in held.fields
    assert rsconvert.load(saved).source.class_names is None


def test_three_means_of_a_grey_network_are_read_as_their_average(tiny: Any, tmp_path: Path) -> None:
    """As versions before wrote them; the tensors have the same bits."""
    model, path = tiny(), tmp_path / "grey.safetensors"
    model.conv1 = torch.nn.Conv2d(1, 8, 3)
    net = rsconvert.make_switchable(model, (64, 48))
    rsconvert.save(net, path)
    rewrite(path, mean=[0.5, 0.25, 0.0], std=[0.5, 0.5, 0.5])
    held = rsconvert.load(path, model)
    assert (held.source.preprocessing.mean, held.source.preprocessing.std) == ((0.25,), (0.5,))
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in held.state_dict().items())
    rewrite(path, images=...)  # and before they said what an image is
    assert rsconvert.load(path, model).source.preprocessing == held.source.preprocessing
    net.source = held.source.with_channels(3)
    with pytest.raises(CheckpointError, match="mean has 3 numbers, the images have the channels 1"):
        rsconvert.save(net, path)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"format_version": 3}, "format version 3.*Update"),
        ({"format_version": 3, "resolutions": "of another kind"}, "Update"),
        ({"format_version": ...}, "format_version is None"),
        ({"format_version": "1"}, "format_version is '1'"),
        ({"format_version": True}, "format_version is True"),
        ({"format_version": 0}, "format_version is 0"),
        ({"resolutions": ...}, "resolutions is None"),
        ({"resolutions": []}, "resolutions is empty"),
        ({"resolutions": "224"}, "resolutions is '224'"),
        ({"resolutions": 64}, "resolutions is 64"),
        ({"resolutions": [64, 64]}, "64 twice"),
        ({"resolutions": [64, -48]}, "-48"),
        ({"resolutions": [64, 48.5]}, "48.5"),
        ({"resolutions": [32, 48, 64]}, r"\[32, 48, 64\]"),
        ({"resolutions": [64, {}]}, "resolutions has {}"),
        ({"resolutions": [65, 48, 32]}, "native is 64"),
        ({"native": "64"}, "native is '64'"),
        ({"resolutions": [10**9, 48, 32], "native": 10**9}, "at most 64 resolutions of at most 16384 pixels"),
        ({"resolutions": list(range(99, 0, -1)), "native": 99}, "resolutions holds 99 numbers"),
        ({"model_kwargs": {"depths": [2, 10**9]}}, "model_kwargs holds 1000000000"),
        ({"model_kwargs": {"scale": float("nan")}}, "model_kwargs holds nan"),
        ({"num_classes": 10**9}, "more than its"),
        ({"class_names": ["\ud800"]}, "surrogates not allowed"),
        ({"training": {"deep": json.loads("[" * 99 + "]" * 99)}}, "more than 64 levels"),
        ({"crop_pct": 1e-6}, "crop_pct is"),
        ({"std": [1e-30, 1, 1]}, "std is"),
        ({"mean": [1e30, 1, 1]}, "mean is"),
        ({"mean": ...}, "mean is missing"),
        ({"mean": [0.5]}, "mean has 1 numbers, std 3"),
        ({"mean": [0.5], "std": [0.5]}, "mean has 1 numbers, the images have the channels 3"),
        ({"std": [0, 0, 0]}, "std is"),
        ({"mean": "grey"}, "mean is"),
        ({"mean": [10**400, 0, 0]}, "damaged metadata"),
        ({"interpolation": "psychic"}, "interpolation is"),
        ({"interpolation": None}, "interpolation is missing"),
        ({"crop_pct": [0.9, 0.8]}, "crop_pct has 2 numbers for 3"),
        ({"crop_pct": "all"}, "crop_pct is"),
        ({"crop_pct": 0}, "crop_pct is"),
        ({"architecture": 5}, "architecture is 5"),
        ({"architecture": "a\nb"}, "architecture is"),
        ({"license": ["mit"]}, "license is"),
        ({"license": "mit\n# more"}, "license is"),
        ({"model_kwargs": [1]}, "model_kwargs is"),
        ({"num_classes": "5"}, "num_classes is '5'"),
        ({"num_classes": -5}, "num_classes is -5"),
        ({"num_classes": 5.0}, "num_classes is 5.0"),
        ({"num_classes": True}, "num_classes is True"),
        ({"images": {}}, "images is {}"),
        ({"images": ["x"]}, "images is"),
        ({"images": [{}]}, "images holds {}"),
        ({"images": [{"position": 0, "ndim": 4, "axes": [1]}]}, "images holds"),
        ({"private": 1}, "private is 1"),
        ({"aliases": ["a"]}, "aliases is"),
        ({"aliases": {"a": ["b"]}}, "aliases holds"),
        ({"class_names": "ab"}, "class_names is"),
        ({"class_names": [1, 2]}, "class_names holds"),
        ({"new_classifier": {}}, "new_classifier is"),
        ({"training": []}, "training is"),
        ({"source": 1}, "source is 1"),
        ({"int8": []}, "int8 is"),
        ({"int8": {"ranges": INT8["ranges"]}}, "int8 has ranges from None images"),
        ({"int8": {**INT8, "images": "<b>"}}, "int8 has ranges from '<b>' images"),
        ({"int8": {"images": 5}}, "int8 holds no ranges of each resolution"),
        ({"int8": {"images": 5, "ranges": {"64": {}, "48": {}}}}, "int8 holds no ranges of each resolution"),
        ({"int8": {"images": 5, "ranges": {"64": {}, "48": {}, "32": 5}}}, "other activations at one resolution"),
        (
            {"int8": {"images": 5, "ranges": {"64": {}, "48": {}, "32": {"x": [0, 1]}}}},
            "other activations at one resolution",
        ),
        (
            {"int8": {"images": 5, "ranges": {r: {"x": [1, 0]} for r in ("64", "48", "32")}}},
            r"int8 has the range \[1, 0\] of 'x'",
        ),
        ({"int8": {"images": 5, "ranges": {r: {"x": 7} for r in ("64", "48", "32")}}}, "int8 has the range 7 of 'x'"),
        ({"int8": {**INT8, "shifts": []}}, "int8 holds no shifts of each resolution"),
        ({"int8": {**INT8, "shifts": {"64": {}}}}, "int8 holds no shifts of each resolution"),
        ({"int8": {**INT8, "shifts": {r: {"bn": [0.5, "a"]} for r in ("64", "48", "32")}}}, "shifts the means of 'bn'"),
        ({"int8": {**INT8, "shifts": {r: [0.5] for r in ("64", "48", "32")}}}, r"int8 holds \[0\.5\] in place"),
        ({"cascade": [48, 64]}, "cascade is"),
        ({"cascade": {}}, "stages of the cascade are"),
        ({"cascade": {"stages": "48", "thresholds": [0.5]}}, "stages of the cascade is '48'"),
        ({"cascade": {"stages": [64, 48], "thresholds": [0.5]}}, "stages of the cascade are 64,48"),
        ({"cascade": {"stages": ["48", 99999], "thresholds": [0.5]}}, "metadata .*48"),
        (
            {"cascade": {"stages": [48, 99999], "thresholds": [0.5]}},
            "stages of the cascade holds 2 numbers up to 99999",
        ),
        ({"cascade": {"stages": [48, 64], "thresholds": [2]}}, "thresholds of the cascade"),
        ({"cascade": {"stages": [48, 64], "thresholds": [0.5], "outputs": [-1]}}, "outputs of the cascade"),
        ({"num_classes": 5, "cascade": {"stages": [48, 64], "thresholds": [0.5], "outputs": [0, 5]}}, "outputs of the"),
    ],
)
def test_damaged_metadata_is_refused(saved: Path, fields: dict[str, Any], match: str) -> None:
    rewrite(saved, **fields)
    with pytest.raises(CheckpointError, match=match):
        describe(saved)
    refusal(saved)


@pytest.mark.parametrize("text", ["", "{", '{"format_version": 1', "[]", "1", '"x"', "null", "[" * 100_000, "9" * 5000])
def test_damaged_json_is_refused(saved: Path, text: str) -> None:
    rewrite(saved, text)
    assert "damaged metadata" in refusal(saved)


def test_a_plain_checkpoint_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file(rsconvert.create_model("test_efficientnet").state_dict(), plain, metadata)
        assert "plain checkpoint" in refusal(plain)
        assert "rsconvert wrap" in refusal(plain)


def test_describe_counts_what_the_file_holds(net: SwitchableModel, saved: Path) -> None:
    facts = describe(saved)
    state = net.state_dict()
    assert facts["tensors"] == len(state)
    assert facts["values"] == sum(tensor.numel() for tensor in state.values())
    assert facts["dtypes"] == ["float32", "int64"]
    assert facts["bytes"] == saved.stat().st_size
    assert list(facts["importance_scores"].values()) == net.alpha.softmax(0).tolist()
    assert list(facts["importance_scores"]) == ["64", "48", "32"]
    assert json.loads(json.dumps(facts)) == facts
    assert facts["architecture"] == "test_efficientnet"


def test_describe_needs_alpha(saved: Path) -> None:
    header, tensors = header_of(saved), load_file(saved)
    save_file({**tensors, "rsconvert.alpha": torch.ones(2)}, saved, header)
    with pytest.raises(CheckpointError, match=r"rsconvert\.alpha"):
        describe(saved)


def test_whole_rows_of_costs_are_accepted(saved: Path) -> None:
    rows = [{**ROW, "top1": 50.5}, ROW, {**ROW, "top1": None, "further": "x", "latency_ms": 2}]
    for costs in ({}, {"A": rows, "B": []}):
        rewrite(saved, costs=costs)
        assert read_metadata(saved).measured.costs == costs


@pytest.mark.parametrize(
    "fields",
    [
        {"resolution": 64.0}, {"resolution": 0}, {"resolution": True}, {"resolution": None}, {"batch_size": "1"},
        {"multiply_adds": -1}, {"multiply_adds": 10**400}, {"form": 1}, {"amp": None}, {"latency_ms": "1"},
        {"latency_ms": -1.0}, {"latency_ms": float("nan")}, {"latency_ms": None}, {"latency_ms": True},
        {"top1": "high"}, {"top1": [1]},
    ],
)  # fmt: skip
def test_other_rows_of_costs_are_refused(saved: Path, fields: dict[str, Any]) -> None:
    rewrite(saved, costs={"A": [ROW, {**ROW, **fields}]})
    assert "costs of 'A'" in refusal(saved)


@pytest.mark.parametrize("rows", [{}, None, 5, [5], [{}]])
def test_what_is_no_list_of_rows_is_refused(saved: Path, rows: Any) -> None:
    rewrite(saved, costs={"A": rows})
    assert "costs of 'A'" in refusal(saved)


def test_the_task_of_a_network_is_kept(net: SwitchableModel, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    net.source = replace(
        net.source, task=Task(name="segmentation", output="out", ignore_index=0, auxiliary={"aux": 0.4})
    )
    rsconvert.save(net, path)
    facts = json.loads(header_of(path)["rsconvert"])
    own = {"task": "segmentation", "output": "out", "ignore_index": 0, "auxiliary": {"aux": 0.4}}
    assert {name: facts[name] for name in own} == own
    assert rsconvert.load(path).source.task == net.source.task


@pytest.mark.parametrize(
    "fields",
    [
        {"task": "detection"},
        {"task": 3},
        {"ignore_index": 255},
        {"task": "segmentation", "ignore_index": "255"},
        {"task": "segmentation", "auxiliary": {"aux": "much"}},
    ],
)
def test_a_damaged_task_is_refused(net: SwitchableModel, tmp_path: Path, fields: dict[str, Any]) -> None:
    path = tmp_path / "x.safetensors"
    rsconvert.save(net, path)
    rewrite(path, **fields)
    assert "damaged metadata" in refusal(path)
