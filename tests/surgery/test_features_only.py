"""timm's models for features alone: lists of maps on every path, in every wrapper, through a file and back."""

import copy

import pytest
import torch
from torch import Tensor

from rsconvert.checkpoint import load, save
from rsconvert.errors import ConfigError
from rsconvert.models import create_model, source_of
from rsconvert.surgery import SwitchableModel, make_switchable

RESOLUTIONS = (96, 64)
MODELS = {
    "list": ("test_resnet", {}, "FeatureListNet"),
    "chosen": ("test_resnet", {"out_indices": (1, 3)}, "FeatureListNet"),
    "dict": ("test_resnet", {"feature_cls": "dict"}, "FeatureDictNet"),
    "hook": ("test_resnet", {"feature_cls": "hook"}, "FeatureHookNet"),
    "getter": ("test_resnet", {"feature_cls": "getter", "out_indices": (1, -1)}, "FeatureGetterNet"),
    "mobilenetv3": ("mobilenetv3_small_050", {"out_indices": (0, 2)}, "MobileNetV3Features"),
    "efficientnet": ("test_efficientnet", {}, "EfficientNetFeatures"),
    "expansion": ("efficientnet_lite0", {"feature_location": "expansion"}, "EfficientNetFeatures"),
    "hrnet": ("hrnet_w18_small", {}, "HighResolutionNetFeatures"),
}


def features(name: str, **kwargs: object) -> torch.nn.Module:
    return create_model(name, model_kwargs={"features_only": True, **kwargs})


def maps(output: list[Tensor] | dict[str, Tensor]) -> list[Tensor]:
    return list(output.values() if isinstance(output, dict) else output)


def same(one: object, other: object) -> bool:
    return type(one) is type(other) and len(one) == len(other) and all(map(torch.equal, maps(one), maps(other)))


@pytest.fixture(params=MODELS)
def case(request, write_all) -> tuple[torch.nn.Module, SwitchableModel, str]:
    """A source, its network of two different sets in eval mode, and the name of their class."""
    name, kwargs, wrapper = MODELS[request.param]
    source = features(name, **kwargs)
    return source, write_all(make_switchable(source, RESOLUTIONS)).eval(), wrapper


@torch.no_grad()
def test_the_maps_are_those_of_the_source(case, write, image, tmp_path) -> None:
    source, net, wrapper = case
    assert type(source).__name__ == wrapper
    assert net.source.num_classes is None
    save(net, tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors").eval()
    for resolution in RESOLUTIONS:
        wanted = write(copy.deepcopy(source), resolution).eval()(image(resolution))
        assert [m.shape[1] for m in maps(wanted)] == source.feature_info.channels()
        assert [resolution // m.shape[2] for m in maps(wanted)] == source.feature_info.reduction()
        one = load(tmp_path / "net.safetensors", resolution=resolution).eval()
        for model in (net.at(resolution), net, net.extract(resolution), again, again.at(resolution), one):
            assert same(model(image(resolution)), wanted)
        assert type(net.at(resolution)) is type(one) is type(source)


@torch.no_grad()
def test_an_untrained_resolution_gives_maps_too(write_all, image) -> None:
    net = write_all(make_switchable(features("test_resnet", feature_cls="hook"), RESOLUTIONS)).eval()
    assert [m.shape[-1] for m in net(image(80))] == [40, 20, 10, 5, 3]
    assert same(net.extract(80)(image(80)), net.at(80)(image(80)))


def test_the_hooks_of_a_path_are_its_own(image) -> None:
    net = make_switchable(features("test_resnet", feature_cls="hook"), RESOLUTIONS)
    assert net.at(96).hooks is not net.at(64).hooks
    net.at(96).body.conv1(image(96))
    net.at(96).body.act1(image(96))
    assert list(net.at(64).hooks.get_output(torch.device("cpu"))) == []
    assert list(net.at(96).hooks.get_output(torch.device("cpu"))) == ["act1"]


def test_views_give_one_list_each(image) -> None:
    net = make_switchable(features("test_resnet", out_indices=(4,)), RESOLUTIONS)
    outputs = net(views=[image(r) for r in RESOLUTIONS])
    assert [[m.shape[1:] for m in output] for output in outputs] == [[(96, 3, 3)], [(96, 2, 2)]]


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050", "hrnet_w18_small"])
def test_features_have_no_classes(name) -> None:
    assert source_of(features(name)).num_classes is None
    with pytest.raises(ConfigError, match=rf"num_classes is 10 and {name} with .* has no classifier.*Leave it out"):
        create_model(name, num_classes=10, model_kwargs={"features_only": True})
    assert source_of(create_model(name, num_classes=0, model_kwargs={"features_only": True})).num_classes is None
