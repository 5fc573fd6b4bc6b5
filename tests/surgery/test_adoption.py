"""Adoption: a model made elsewhere gets its name if the name is proved to build it, and its own preprocessing."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

import rsconvert
from rsconvert.data import Preprocessing
from rsconvert.models import Source
from rsconvert.surgery import make_switchable
from rsconvert.surgery.adoption import adopted


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def source_found(model: nn.Module) -> Source:
    return adopted(model, Source())[0]


@pytest.mark.parametrize(
    ("name", "classes"), [("test_resnet", 7), ("test_efficientnet", None), ("mobilenetv2_035", 5), ("resnet10t", 0)]
)
def test_a_model_of_timm_is_adopted_and_loads_by_itself(name: str, classes: int | None, tmp_path: Path) -> None:
    model = timm.create_model(name, **({} if classes is None else {"num_classes": classes}))
    net = make_switchable(model, (64, 32)).eval()
    assert net.source.architecture is not None
    assert net.source.architecture.partition(".")[0] == name
    assert net.source.num_classes == model.num_classes
    rsconvert.save(net, tmp_path / "net.safetensors")
    again, x = rsconvert.load(tmp_path / "net.safetensors"), torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), net(x))
    assert again.source == net.source


def test_the_model_stays_as_it_was() -> None:
    model = timm.create_model("test_resnet", drop_rate=0.0).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert source_found(model).architecture is not None
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "arguments",
    [
        {"pad_type": "same", "bn_eps": 1e-3},  # the same keys and cfg
        {"bn_eps": 1e-3},
        {"drop_rate": 0.1},
        {"drop_path_rate": 0.1},
        {"in_chans": 1},
    ],
)
def test_arguments_that_the_name_does_not_tell_are_noticed(arguments: dict[str, Any]) -> None:
    model = timm.create_model("mobilenetv2_035", num_classes=5, **arguments)
    assert source_found(model).architecture is None


def test_another_computation_is_noticed_by_the_output() -> None:
    model = timm.create_model("test_resnet")
    block = model.layer1[0]
    assert not block.bn2.weight.any()  # a branch that a fresh network hides
    block.conv1.register_forward_hook(lambda module, args, output: output * 1.001)
    assert source_found(model).architecture is None


class Own(torchvision.models.ResNet):
    pass


def test_a_class_of_the_user_s_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models, "list_models", lambda: pytest.fail("it was"))
    model = Own(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
    assert adopted(model, Source()) == (Source(), ())
    assert adopted(nn.Sequential(nn.Conv2d(3, 3, 3)), Source()) == (Source(), ())


@pytest.mark.parametrize(
    ("name", "arguments", "classes"),
    [
        ("resnet18", {"num_classes": 7}, 7),
        ("shufflenet_v2_x0_5", {}, 1000),
        ("mobilenet_v3_small", {"num_classes": 3}, 3),
        ("regnet_y_400mf", {"num_classes": 3}, 3),  # is not built without data
    ],
)
def test_a_model_of_torchvision_is_adopted(name: str, arguments: dict[str, Any], classes: int) -> None:
    source, (note,) = adopted(torchvision.models.get_model(name, **arguments), Source())
    assert (source.architecture, source.num_classes, source.model_kwargs) == (f"torchvision/{name}", classes, {})
    assert note == f"architecture: torchvision/{name}, which builds the same model: proved by its outputs"


def test_what_torchvision_sets_with_weights_is_found_too() -> None:
    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None)
    assert source_found(model).architecture == "torchvision/lraspp_mobilenet_v3_large"
    model = torchvision.models.segmentation.fcn_resnet50(weights_backbone=None, aux_loss=True)
    assert source_found(model).model_kwargs == {"aux_loss": True}


def test_a_replaced_classifier_is_another_number_of_classes() -> None:
    model = torchvision.models.resnet18()
    model.fc = nn.Linear(512, 4)
    assert source_found(model).num_classes == 4


def test_arguments_of_torchvision_that_no_name_tells() -> None:
    assert source_found(torchvision.models.resnet50(width_per_group=32)).architecture is None
    assert source_found(torchvision.models.mobilenet_v2(dropout=0.5)).architecture is None


def test_the_preprocessing_is_the_model_s_own_and_told() -> None:
    model = timm.create_model("mobilenetv2_035", bn_eps=1e-3)
    net = make_switchable(model, (64, 32))
    cfg = model.pretrained_cfg
    assert net.source.preprocessing == Preprocessing(
        mean=cfg["mean"], std=cfg["std"], interpolation=cfg["interpolation"], crop_pct=cfg["crop_pct"]
    )
    (line,) = [line for line in str(net.report).splitlines() if line.startswith("preprocessing: ")]
    assert line.endswith("bicubic, crop_pct 0.875, from the model's pretrained_cfg")


def test_a_grey_model_has_one_mean() -> None:
    net = make_switchable(timm.create_model("test_resnet", in_chans=1), (64, 32))
    assert (net.source.preprocessing.mean, net.source.preprocessing.std) == ((0.5,), (0.5,))
    assert "preprocessing: mean 0.5, std 0.5, " in str(net.report)


@pytest.mark.parametrize("cfg", [None, 3, {}, {"mean": "a", "std": "b"}])
def test_a_cfg_of_another_kind_tells_nothing(cfg: object, tiny: type[nn.Module]) -> None:
    model = tiny()
    model.pretrained_cfg = cfg
    assert make_switchable(model, (64, 32)).source.preprocessing == Preprocessing()


def test_the_caller_s_name_and_create_model_win() -> None:
    model = timm.create_model("test_resnet")
    named = make_switchable(model, (64, 32), name="my.py:build")
    assert named.source.architecture == "my.py:build"
    assert named.source.preprocessing.interpolation == model.pretrained_cfg["interpolation"]
    own = rsconvert.create_model("test_resnet")
    assert make_switchable(own, (64, 32)).source.preprocessing.interpolation == "bilinear"
    assert make_switchable(own, (64, 32)).report.notes == ()


def test_an_adopted_model_is_built_again_for_each_size_by_itself() -> None:
    net = make_switchable(timm.create_model("levit_128s", num_classes=3), (96, 64))
    assert net.source.built_with == "img_size"
