"""The model card: its front matter is YAML that the hub takes, its figures are those measured, its code runs."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import yaml

import rsconvert
from rsconvert.errors import ConfigError
from rsconvert.evaluation import Accuracy, Evaluation
from rsconvert.export.card import model_card
from rsconvert.surgery import SwitchableModel, scrambled, write

RESOLUTIONS = (64, 48, 32)


def switchable(name: str, num_classes: int | None = 5, **model_kwargs: Any) -> SwitchableModel:
    torch.manual_seed(0)
    model = rsconvert.create_model(name, num_classes=num_classes, model_kwargs=model_kwargs)
    net = rsconvert.make_switchable(model, RESOLUTIONS).eval()
    for resolution in RESOLUTIONS:
        write(net.at(resolution), scrambled(net.at(resolution), resolution))
    return net


@pytest.fixture(scope="module")
def net() -> SwitchableModel:
    return switchable("test_resnet")


@pytest.fixture
def result() -> Evaluation:
    rows = {64: Accuracy(81.234, 95.5, 1_250_000), 48: Accuracy(80.0, 95.0, 700_000), 32: Accuracy(70.0, 90.0, 300_000)}
    rows[40] = Accuracy(75.0, 92.0, 500_000, interpolated=True)
    alone = Evaluation(7, {32: Accuracy(66.6, 88.0)}, None)
    return Evaluation(7, rows, Accuracy(82.5, 96.0), {"I|32\n# x": alone})


def with_weights(net: SwitchableModel, weights: str) -> SwitchableModel:
    net = switchable("test_resnet")
    net.source = replace(net.source, weights=weights)
    return net


def front_matter(card: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert found
    facts = yaml.safe_load(found[1])
    assert isinstance(facts, dict)
    return facts


def test_the_front_matter_says_what_is_known(net: SwitchableModel) -> None:
    facts = front_matter(model_card(net))
    assert facts["library_name"] == "timm"
    assert facts["license"] == "unknown"
    assert facts["pipeline_tag"] == "image-classification"
    assert {"timm", "rsconvert"} <= set(facts["tags"])
    assert "datasets" not in facts
    assert "licence of the source weights: unknown: fill in" in model_card(net)


def test_downloaded_weights_bring_their_licence_and_data(net: SwitchableModel) -> None:
    known = with_weights(net, "pretrained resnet50.tv_in1k")
    facts = front_matter(model_card(known))
    assert (facts["license"], facts["datasets"]) == ("bsd-3-clause", ["imagenet-1k"])
    assert "- licence of the source weights: `bsd-3-clause`" in model_card(known)
    assert front_matter(model_card(known, licence="mit"))["license"] == "mit"
    known.source = replace(known.source, licence="apache-2.0")
    assert front_matter(model_card(known))["license"] == "apache-2.0"
    two = front_matter(model_card(with_weights(net, "pretrained convnext_tiny.in12k_ft_in1k")))
    assert two["datasets"] == ["imagenet-12k", "imagenet-1k"]
    vision = front_matter(model_card(with_weights(net, "pretrained ResNet18_Weights.IMAGENET1K_V1")))
    assert (vision["license"], vision["datasets"]) == ("unknown", ["imagenet-1k"])
    for name in ("pretrained no_such_model", "pretrained resnet50.no_such_tag", "resnet50.tv_in1k"):
        assert front_matter(model_card(with_weights(net, name)))["license"] == "unknown"


@pytest.mark.parametrize("licence", ["Our own: see #3 {x}", "- a", "'\"", "ÄÖ"])
def test_a_licence_of_ones_own_is_escaped(net: SwitchableModel, licence: str) -> None:
    facts = front_matter(model_card(net, licence=licence))
    assert (facts["license"], facts["license_name"]) == ("other", licence)


@pytest.mark.parametrize("licence", ["", "  ", "mit\n---\n# evil"])
def test_a_licence_is_one_line(net: SwitchableModel, licence: str) -> None:
    with pytest.raises(ConfigError, match=r"licence is .*apache-2\.0"):
        model_card(net, licence=licence)


def test_the_folders_of_a_file_are_not_published(net: SwitchableModel) -> None:
    card = model_card(with_weights(net, "/srv/somebody/secret/w`\n# x.safetensors"))
    assert "secret" not in card
    assert "- source weights: `w  # x.safetensors`\n" in card


def test_without_results_the_table_holds_multiply_adds(net: SwitchableModel) -> None:
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \|$", model_card(net), re.MULTILINE)
    assert [int(side) for side, _ in rows] == list(RESOLUTIONS)
    costs = [rsconvert.evaluation.multiply_adds(net.at(r), r) / 1e6 for r in RESOLUTIONS]
    assert [float(cost) for _, cost in rows] == pytest.approx(costs, abs=0.06)


def test_results_become_the_table(net: SwitchableModel, result: Evaluation) -> None:
    card = model_card(net, json.loads(json.dumps(result.to_dict())))
    lines = [line for line in card.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in lines] == ["resolution", "---", "64", "48", "32", "40", "ensemble"]
    assert "81.23" in lines[2]
    assert "66.60" in lines[4]
    assert "interpolated" in lines[5]
    assert len({line.count("|") for line in lines}) == 1
    assert "7 images." in card
    assert not re.search(r"^# x", card, re.MULTILINE)
    del result.baselines["I|32\n# x"]
    assert model_card(net, result) == model_card(net, result.to_dict())


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
        {"count": 7, "resolutions": {"large": {"top1": 80.0, "top5": 95.0}}},
        {"count": 7, "resolutions": {"224": {"top1": 80.0, "top5": 95.0}}},
    ],
)
def test_results_of_anything_else_are_refused(net: SwitchableModel, results: Any) -> None:
    with pytest.raises(ConfigError, match=r"^results are .*evaluate|^results are of a network trained at") as caught:
        model_card(net, results)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["test_resnet", "torchvision/shufflenet_v2_x0_5"])
def test_the_code_of_the_card_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = switchable(name)
    folder = rsconvert.export_hub(net, tmp_path / "out")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, name, **_: str(folder / name))
    made, local = timm.create_model, f"local-dir:{folder}"
    monkeypatch.setattr(timm, "create_model", lambda name, **k: made(name.replace("hf-hub:USER/NAME", local), **k))
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


def test_the_builders_arguments_are_told() -> None:
    assert 'with `{"drop_rate": 0.1}`' in model_card(switchable("test_resnet", drop_rate=0.1))
    card = model_card(switchable("torchvision/shufflenet_v2_x0_5", 7))
    assert 'get_model("shufflenet_v2_x0_5", weights=None, num_classes=7)' in card
    assert front_matter(card)["library_name"] == "torchvision"
