"""What a network offers of its source, and a new classifier for all its paths."""

import copy
import pickle

import pytest
import torch
from torch import nn

import rsconvert
from rsconvert.errors import ConfigError
from rsconvert.models import classifier_keys, create_model
from rsconvert.surgery import make_switchable

RESOLUTIONS = (96, 64)
THIN = {"embed_dim": (16,) * 3, "num_heads": (2,) * 3, "key_dim": 8, "depth": (1,) * 3}


@pytest.fixture
def net() -> rsconvert.SwitchableModel:
    return make_switchable(create_model("test_efficientnet", num_classes=7), RESOLUTIONS).eval()


def test_the_services_of_timm_are_offered(net, image) -> None:
    features = net.forward_features(image(64))
    assert torch.equal(features, net.at(64).forward_features(image(64)))
    assert torch.equal(net.at(64).forward_head(features), net(image(64)))
    assert net.num_features == net.at(96).num_features
    assert net.pretrained_cfg == net.at(96).pretrained_cfg
    assert net.get_classifier() is net.at(64).get_classifier() or net.get_classifier().weight is net.classifier.weight
    net.set_grad_checkpointing(True)
    assert all(net.at(resolution).grad_checkpointing for resolution in RESOLUTIONS)
    assert not hasattr(net, "nonsense")


def test_what_the_network_cannot_choose_a_path_for_names_the_place(net) -> None:
    with pytest.raises(AttributeError, match=r"forward_head.*net\.at\(resolution\)"):
        _ = net.forward_head
    assert pickle.loads(pickle.dumps(net)).num_features == net.num_features
    assert copy.deepcopy(net).num_classes == 7


@pytest.mark.parametrize(
    ("name", "thin", "sides"),
    [("test_efficientnet", {}, (96, 64)), ("levit_128s", THIN, (96, 64)), ("test_resnet", {}, (64, 48, 32))],
)
def test_a_new_classifier_is_that_of_every_path(name: str, thin: dict, sides: tuple[int, ...], image) -> None:
    net = make_switchable(create_model(name, model_kwargs=thin), sides).eval()
    with torch.no_grad():
        net.alpha.copy_(torch.arange(len(sides)))
    before = {side: net.forward_features(image(side)) for side in sides}
    net.reset_classifier(5)
    with pytest.raises(ConfigError, match="num_classes is -1"):
        net.reset_classifier(-1)
    assert net.alpha.tolist() == list(range(len(sides)))
    assert (net.num_classes, net.source.num_classes) == (5, 5)
    assert set(net.source.new_classifier) == set(classifier_keys(net.at(sides[0])))
    for side in sides:
        assert torch.equal(net.forward_features(image(side)), before[side])
        assert net(image(side)).tolist() == [[0.0] * 5] * 2
    for key in net.source.new_classifier:
        assert all(net.at(side).get_parameter(key) is net.get_parameter(key) for side in sides)
    with torch.no_grad():
        for key in net.source.new_classifier:
            net.get_parameter(key).fill_(1.0)
    assert all(net(image(side)).any() for side in sides)


def test_a_network_with_a_new_classifier_survives_its_file(tmp_path, image) -> None:
    net = make_switchable(create_model("levit_128s", model_kwargs=THIN), RESOLUTIONS).eval()
    net.reset_classifier(4)
    rsconvert.save(net, tmp_path / "net.safetensors")
    again = rsconvert.load(tmp_path / "net.safetensors").eval()
    for side in (96, 80, 64):  # also one that is built anew
        assert torch.equal(again(image(side)), net(image(side)))
    assert again.source.num_classes == 4


def test_a_source_without_the_method_has_none(tiny) -> None:
    net = make_switchable(tiny(), (64, 32))
    with pytest.raises(AttributeError, match="reset_classifier"):
        net.reset_classifier(3)
    assert isinstance(net.fc, nn.Linear)
