"""The folder for a hub: stock timm opens it strictly, rsconvert reads it back, its card says what is known."""

import copy
import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import torchvision
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

import rsconvert
from rsconvert.errors import CheckpointError, ConfigError, RSConvertError, UnsupportedModelError
from rsconvert.evaluation import Accuracy, Evaluation, MaskAccuracy
from rsconvert.export import export_hub, verify_export
from rsconvert.export.hub import model_card
from rsconvert.surgery import SwitchableModel, scrambled, write

RESOLUTIONS = (64, 48, 32)
FILES = ["README.md", "config.json", "model.safetensors", "rsconvert.safetensors"]


def switchable(name: str, num_classes: int | None = 5, private: Any = True, **model_kwargs: Any) -> SwitchableModel:
    torch.manual_seed(0)
    model = rsconvert.create_model(name, num_classes=num_classes, model_kwargs=model_kwargs)
    net = rsconvert.make_switchable(model, RESOLUTIONS, private=private).eval()
    for resolution in RESOLUTIONS:
        write(net.at(resolution), scrambled(net.at(resolution), resolution))
    return net


def images(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))


@pytest.fixture(scope="module")
def made() -> SwitchableModel:
    return switchable("test_resnet")


@pytest.fixture
def net(made: SwitchableModel) -> SwitchableModel:
    return copy.deepcopy(made)


@torch.no_grad()
def test_the_folder_of_a_timm_network(net: SwitchableModel, tmp_path: Path) -> None:
    net.source = replace(net.source, class_names=("tench", "dog", "horn", "church", "ünder"))
    folder = Path(export_hub(net, tmp_path / "out", licence="mit"))
    assert sorted(entry.name for entry in folder.iterdir()) == FILES
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(model(images(64)), net(images(64)))
    assert load_file(folder / "model.safetensors").keys() == model.state_dict().keys()
    config = json.loads((folder / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [3, 64, 64]
    assert config["label_names"][0] == "tench"
    again = rsconvert.load(folder / "rsconvert.safetensors").eval()
    assert all(torch.equal(again(images(side)), net(images(side))) for side in (*RESOLUTIONS, 40))
    assert "license: mit" in (folder / "README.md").read_text()
    assert list(tmp_path.iterdir()) == [folder]


@torch.no_grad()
def test_the_folder_of_a_torchvision_network(tmp_path: Path) -> None:
    net = switchable("torchvision/shufflenet_v2_x0_5")
    folder = Path(export_hub(net, tmp_path / "out"))
    assert sorted(entry.name for entry in folder.iterdir()) == [name for name in FILES if name != "config.json"]
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=5).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    assert torch.equal(model(images(64)), net(images(64)))
    assert verify_export(folder, net).passed


def test_verify_takes_the_folder_at_every_size(net: SwitchableModel, tmp_path: Path) -> None:
    folder = Path(export_hub(net, tmp_path / "out"))
    result = verify_export(folder, net)
    assert result.passed
    assert list(result.sizes) == ["64", "56", "48", "40", "32", "64x32"]
    for side in RESOLUTIONS:
        other = switchable("test_resnet")
        write(other.at(side), scrambled(other.at(side), 99))
        assert verify_export(folder, other).sizes[str(side)].difference > 1e-3


def test_two_networks_in_one_folder_are_found(net: SwitchableModel, tmp_path: Path) -> None:
    folder = Path(export_hub(net, tmp_path / "out"))
    plain = load_file(folder / "model.safetensors")
    save_file(plain | {"conv1.0.weight": plain["conv1.0.weight"] + 1}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"holds two networks: model\.safetensors has another conv1\.0\.weight"):
        verify_export(folder, net)


@pytest.mark.parametrize("name", [None, "model.py:build", "hf-hub:a/b"])
def test_a_network_without_such_a_name_is_refused(net: SwitchableModel, tmp_path: Path, name: str | None) -> None:
    net.source = replace(net.source, architecture=name)
    with pytest.raises(UnsupportedModelError, match=name or "without a name") as caught:
        export_hub(net, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_nothing_but_an_export(net: SwitchableModel, tmp_path: Path) -> None:
    folder = Path(export_hub(net, tmp_path / "out"))
    with pytest.raises(CheckpointError, match=r"out exists.*--force"):
        export_hub(net, folder)
    export_hub(net, folder, force=True)
    (folder / "thesis.txt").write_text("the only copy")
    with pytest.raises(CheckpointError, match=r"thesis\.txt"):
        export_hub(net, folder, force=True)


def test_a_failure_leaves_the_old_folder(
    net: SwitchableModel, tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    folder = Path(export_hub(net, tmp_path / "out"))
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    with full_disk(), pytest.raises(CheckpointError, match="room"):
        export_hub(net, folder, force=True)
    net.source = replace(net.source, training={"teacher": object()})
    with pytest.raises(RSConvertError, match="JSON"):
        export_hub(net, folder, force=True)
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


@pytest.fixture
def result() -> Evaluation:
    rows = {64: Accuracy(81.234, 95.5, 1_250_000), 48: Accuracy(80.0, 95.0, 700_000), 32: Accuracy(70.0, 90.0, 300_000)}
    rows[40] = Accuracy(75.0, 92.0, 500_000, interpolated=True)
    alone = Evaluation(7, {32: Accuracy(66.6, 88.0)}, None)
    return Evaluation(7, rows, Accuracy(82.5, 96.0), {"I|32\n# x": alone})


def with_weights(made: SwitchableModel, weights: str) -> SwitchableModel:
    net = switchable("test_resnet")
    net.source = replace(net.source, weights=weights)
    return net


def front_matter(card: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert found
    facts = yaml.safe_load(found[1])
    assert isinstance(facts, dict)
    return facts


def test_the_front_matter_says_what_is_known(made: SwitchableModel) -> None:
    facts = front_matter(model_card(made))
    assert facts["library_name"] == "timm"
    assert facts["license"] == "unknown"
    assert facts["pipeline_tag"] == "image-classification"
    assert {"timm", "rsconvert"} <= set(facts["tags"])
    assert "datasets" not in facts
    assert "licence of the source weights: unknown: fill in" in model_card(made)


def test_downloaded_weights_bring_their_licence_and_data(made: SwitchableModel) -> None:
    known = with_weights(made, "pretrained resnet50.tv_in1k")
    facts = front_matter(model_card(known))
    assert (facts["license"], facts["datasets"]) == ("bsd-3-clause", ["imagenet-1k"])
    assert "- licence of the source weights: `bsd-3-clause`" in model_card(known)
    assert front_matter(model_card(known, licence="mit"))["license"] == "mit"
    known.source = replace(known.source, licence="apache-2.0")
    assert front_matter(model_card(known))["license"] == "apache-2.0"
    two = front_matter(model_card(with_weights(made, "pretrained convnext_tiny.in12k_ft_in1k")))
    assert two["datasets"] == ["imagenet-12k", "imagenet-1k"]
    vision = front_matter(model_card(with_weights(made, "pretrained ResNet18_Weights.IMAGENET1K_V1")))
    assert (vision["license"], vision["datasets"]) == ("unknown", ["imagenet-1k"])
    for name in ("pretrained no_such_model", "pretrained resnet50.no_such_tag", "resnet50.tv_in1k"):
        assert front_matter(model_card(with_weights(made, name)))["license"] == "unknown"


@pytest.mark.parametrize("licence", ["Our own: see #3 {x}", "- a", "'\"", "ÄÖ"])
def test_a_licence_of_ones_own_is_escaped(made: SwitchableModel, licence: str) -> None:
    facts = front_matter(model_card(made, licence=licence))
    assert (facts["license"], facts["license_name"]) == ("other", licence)


@pytest.mark.parametrize("licence", ["", "  ", "mit\n---\n# evil"])
def test_a_licence_is_one_line(made: SwitchableModel, licence: str) -> None:
    with pytest.raises(ConfigError, match=r"licence is .*apache-2\.0"):
        model_card(made, licence=licence)


def test_the_folders_of_a_file_are_not_published(made: SwitchableModel) -> None:
    card = model_card(with_weights(made, "/srv/somebody/secret/w`\n# x.safetensors"))
    assert "secret" not in card
    assert "- source weights: `w  # x.safetensors`\n" in card


def test_without_results_the_table_holds_multiply_adds(made: SwitchableModel) -> None:
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \|$", model_card(made), re.MULTILINE)
    assert [int(side) for side, _ in rows] == list(RESOLUTIONS)
    costs = [rsconvert.evaluation.multiply_adds(made.at(r), r) / 1e6 for r in RESOLUTIONS]
    assert [float(cost) for _, cost in rows] == pytest.approx(costs, abs=0.06)


def test_results_become_the_table(made: SwitchableModel, result: Evaluation) -> None:
    card = model_card(made, json.loads(json.dumps(result.to_dict())))
    lines = [line for line in card.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in lines] == ["resolution", "---", "64", "48", "32", "40", "ensemble"]
    assert "81.23" in lines[2]
    assert "66.60" in lines[4]
    assert "interpolated" in lines[5]
    assert len({line.count("|") for line in lines}) == 1
    assert "7 images." in card
    assert not re.search(r"^# x", card, re.MULTILINE)
    del result.baselines["I|32\n# x"]
    assert model_card(made, result) == model_card(made, result.to_dict())


def test_results_of_masks_become_the_table(made: SwitchableModel) -> None:
    row = MaskAccuracy(41.5, 88.25, 52.0, 1_000_000, miou_interval=(38.0, 45.0), difference=(-4.0, -1.0))
    sides = made.resolutions
    other = Evaluation(7, dict.fromkeys(sides, row), None)
    result = Evaluation(7, dict.fromkeys(sides, replace(row, difference=None)), row, {"I-Net": other})
    card = model_card(made, results=json.loads(json.dumps(result.to_dict())))
    assert "| mIoU (%) |" in card
    assert f"| {sides[0]} | 41.50 | 38.0-45.0 | 88.25 | 52.00 | 1.0 | 41.50* |" in card


@pytest.mark.parametrize(
    "results",
    [
        [],
        "text",
        {},
        {"count": 7, "resolutions": {}},
        {"count": 7, "resolutions": {"64": {"top1": 80.0}}},
        {"count": 7, "resolutions": {"64": {"top1": "good", "top5": 95.0}}},
        {"count": 7, "resolutions": {"64": {"top1": 80.0, "top5": 95.0, "colour": 1}}},
        {"count": 7, "resolutions": {"64": {"top1": 80.0, "top5": 95.0, "top1_interval": [60]}}},
        {"count": 7, "resolutions": {"large": {"top1": 80.0, "top5": 95.0}}},
        {"count": 7, "resolutions": {"224": {"top1": 80.0, "top5": 95.0}}},
    ],
)
def test_results_of_anything_else_are_refused(made: SwitchableModel, results: Any) -> None:
    with pytest.raises(ConfigError, match=r"^results are .*evaluate|^results are of a network trained at") as caught:
        model_card(made, results)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "private"),
    [("test_resnet", True), ("torchvision/shufflenet_v2_x0_5", True), ("test_resnet", ("bn", "head"))],
)
def test_the_code_of_the_card_runs(
    name: str, private: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_heads: Any
) -> None:
    net = draw_heads(switchable(name, private=private))
    folder = Path(rsconvert.export_hub(net, tmp_path / "out"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, name, **_: str(folder / name))
    build, local = timm.create_model, f"local-dir:{folder}"
    monkeypatch.setattr(timm, "create_model", lambda name, **k: build(name.replace("hf-hub:USER/NAME", local), **k))
    plain, other, switch = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"images": torch.rand(2, 3, 48, 48)}
    large, small = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        exec(plain, names)
        assert torch.equal(names["model"](large), net(large))
        exec(other, names)
        assert torch.equal(names["model"](small), net(small))
        exec(switch, names)
        assert torch.equal(names["logits"], net(names["images"]))


def test_networks_that_need_more_than_names_get_no_code_for_it() -> None:
    torch.manual_seed(0)
    net = rsconvert.make_switchable(rsconvert.create_model("levit_128s", num_classes=3), (96, 64))
    assert model_card(net).count("```python") == 2
    shared = rsconvert.make_switchable(rsconvert.create_model("test_resnet"), (64, 32), private=False)
    assert model_card(shared).count("```python") == 2


@pytest.mark.parametrize(
    ("private", "own"),
    [
        (True, "each has BatchNorm of its own"),
        (("bn", "head"), "each has BatchNorm and a classifier of its own"),
        (("head",), "each has a classifier of its own"),
        (False, "All resolutions share all weights; an image"),
    ],
)
def test_the_card_says_what_each_resolution_has_of_its_own(private: Any, own: str) -> None:
    assert own in model_card(switchable("test_resnet", private=private))


def test_the_card_says_what_int8_is_made_from(net: SwitchableModel) -> None:
    assert "int8" not in model_card(net)
    ranges = {str(side): {"conv": [0.0, 1.0]} for side in RESOLUTIONS}
    net.measured = replace(net.measured, int8={"images": 17, "ranges": ranges})
    assert "- int8: ranges of activations, from 17 images, for ONNX files" in model_card(net)


def test_the_builders_arguments_are_told() -> None:
    assert 'with `{"drop_rate": 0.1}`' in model_card(switchable("test_resnet", drop_rate=0.1))
    card = model_card(switchable("torchvision/shufflenet_v2_x0_5", 7))
    assert 'get_model("shufflenet_v2_x0_5", weights=None, num_classes=7)' in card
    assert front_matter(card)["library_name"] == "torchvision"


@pytest.mark.parametrize(("given", "known"), [(None, None), ("mit", "mit")])
def test_all_files_tell_one_licence(net: SwitchableModel, tmp_path: Path, given: str | None, known: str | None) -> None:
    before = net.source
    exported = export_hub(net, tmp_path / "out", licence=given)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["pretrained_cfg"].get("license") == known
    assert rsconvert.load(tmp_path / "out").source.licence == known
    assert front_matter((tmp_path / "out" / "README.md").read_text())["license"] == (known or "unknown")
    assert ("licence of the source weights" in exported.left_open) == (known is None)
    assert net.source == before
    assert "left to fill in in its README.md: source weights" in str(exported)


def test_what_is_uploaded_names_its_place_and_licence(
    net: SwitchableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsconvert.export.hub.push_folder", lambda folder, name: f"{name}: {folder.name}")
    with pytest.raises(ConfigError, match="the licence of the source weights is unknown"):
        export_hub(net, tmp_path / "out", push="me/net")
    with pytest.raises(ConfigError, match="USER/NAME of a repository"):
        export_hub(net, tmp_path / "out", licence="mit", push="net")
    assert not (tmp_path / "out").exists()
    exported = export_hub(net, tmp_path / "out", licence="mit", push="me/net")
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'rsconvert.load("hf-hub:me/net")' in card
    assert "USER/NAME" not in card
    assert str(exported).splitlines()[-1] == "uploaded: me/net: out"
