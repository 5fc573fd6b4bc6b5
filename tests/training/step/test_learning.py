"""What learns: the whole, the smaller sets, the head; with alpha or without."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from torch import nn

from rsconvert.errors import ConfigError
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.training.step.learning import learning_parameters

MakeNet = Callable[..., SwitchableModel]


def names(net: SwitchableModel, part: str, alpha: bool = True) -> set[str]:
    learning = learning_parameters(net, part, alpha=alpha)
    return {name for name, parameter in net.named_parameters() if parameter in learning}


def test_each_part_is_what_it_says(net: SwitchableModel) -> None:
    every = {name for name, _ in net.named_parameters()}
    assert names(net, "all") == every
    assert names(net, "bn") == {name for name in every if ".at." in name} | {"rsconvert.alpha"}
    assert names(net, "head") == {"fc.weight", "fc.bias", "rsconvert.alpha"}
    assert all(
        names(net, part, alpha=False) == names(net, part) - {"rsconvert.alpha"} for part in ("all", "bn", "head")
    )


def test_something_must_learn() -> None:
    body = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    net = make_switchable(nn.Sequential(*body), (24, 16))
    assert len(learning_parameters(net, "bn")) == 1
    with pytest.raises(ConfigError, match="train is bn and alpha rests, but the network has no such parameters"):
        learning_parameters(net, "bn", alpha=False)


def test_smaller_sets_need_a_trained_classifier_and_sets_of_their_own(make_net: MakeNet) -> None:
    net = make_net()
    net.source = replace(net.source, new_classifier=("fc.weight",))
    with pytest.raises(ConfigError, match="train is bn, but the classifier is new"):
        learning_parameters(net, "bn")
    for one in (make_net((32,)), make_net(private=False)):
        with pytest.raises(ConfigError, match="train is bn, but the network has no BN set beside the native one"):
            learning_parameters(one, "bn")
