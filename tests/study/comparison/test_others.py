"""Other networks: where their names lead, how they are trained, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rsconvert.checkpoint import load, save
from rsconvert.errors import ConfigError
from rsconvert.models import create_model
from rsconvert.settings import FinetuneConfig
from rsconvert.study.comparison.others import load_others
from rsconvert.study.comparison.plan import Plan, plan_comparison
from rsconvert.study.comparison.runs import compare
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.training import finetune

Plans = Callable[..., Plan]


@pytest.fixture
def narrow() -> SwitchableModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return make_switchable(nn.Sequential(*layers, nn.Linear(4, 3)), (32, 16))


@pytest.fixture
def planned(net: SwitchableModel, photos: str, tmp_path: Path, settings: Callable[..., FinetuneConfig]) -> Plans:
    def plan(*methods: str, **choice: Any) -> Plan:
        return plan_comparison(net, photos, tmp_path / "out", settings(), methods=methods, seeds=(7,), **choice)

    return plan


def test_another_network_is_trained_as_an_i_net_of_the_native_size(
    planned: Plans, narrow: SwitchableModel, settings: Callable[..., FinetuneConfig]
) -> None:
    plan = planned("rsnet", against={"x/narrow": narrow})
    run = plan.runs[1]
    assert (run.name, run.resolutions, run.lr) == ("against-x-narrow/seed-7", (32,), settings().peak_lr(1))
    before = {name: tensor.clone() for name, tensor in narrow.state_dict().items()}
    found = compare(plan)
    assert all(torch.equal(tensor, before[name]) for name, tensor in narrow.state_dict().items())
    own = make_switchable(narrow.extract(32), (32,))
    finetune(own, plan.samples, config=run.config)
    left = load(run.folder / "last.safetensors", narrow.extract(32))
    assert all(torch.equal(tensor, own.state_dict()[name]) for name, tensor in left.state_dict().items())
    line = found.lines[1]
    assert (line.title, list(line.score[32]), line.score[16]) == ("x/narrow", [7], {})
    assert line.multiply_adds[32] < found.multiply_adds[32]
    assert found.gains(line) == {}
    assert found.learning == (plan.methods[0],)


def test_a_folder_may_get_other_networks_and_keeps_them_apart(planned: Plans, narrow: SwitchableModel) -> None:
    planned("rsnet").write_settings()
    planned("rsnet", against={"a": narrow}).write_settings()
    with_b = planned("rsnet", against={"b": narrow})
    with_b.write_settings()
    assert {"against-a", "against-b"} <= json.loads((with_b.folder / "comparison.json").read_text()).keys()
    with torch.no_grad():
        narrow.at(32)[4].bias.add_(1)
    with pytest.raises(ConfigError, match="holds another comparison: against-a was "):
        planned("rsnet", against={"a": narrow})


def test_other_networks_that_do_not_fit_are_refused(planned: Plans, narrow: SwitchableModel) -> None:
    with pytest.raises(ConfigError, match=r"against has small, which has the resolutions \(16,\); a network as wrap"):
        planned("rsnet", against={"small": make_switchable(narrow.extract(16), (16,))})
    with pytest.raises(ConfigError, match="against has a b twice"):
        planned("rsnet", against={"a-b": narrow, "a b": narrow})
    with pytest.raises(ConfigError, match="against-a is tested at 32 alone, and resolutions has none of them"):
        planned("rsnet", against={"a": narrow}, resolutions=(24,))
    narrow.source.__dict__["training"] = {"epochs": 1}
    with pytest.raises(ConfigError, match="against has a, which was finetuned"):
        planned("rsnet", against={"a": narrow})


def test_a_name_is_a_checkpoint_or_a_model(net: SwitchableModel, tmp_path: Path) -> None:
    file, code = tmp_path / "mine.rs.safetensors", tmp_path / "other.py"
    save(make_switchable(create_model("test_resnet", num_classes=3), (32, 16)), file)
    code.write_text("import timm\n\ndef build(num_classes=3):\n    return timm.create_model('test_resnet')\n")
    net.source.__dict__["num_classes"] = None
    found = load_others([str(file), f"{code}:build"], net)
    assert {name: other.resolutions for name, other in found.items()} == {"mine": (32, 16), f"{code}:build": (32,)}
    with pytest.raises(ConfigError, match="against has mine twice"):
        load_others([str(file), str(file)], net)
