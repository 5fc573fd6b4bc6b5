"""Defaults: which network has the gentle ones, what they are, and that what is set stays."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.step.defaults import explain_defaults, fill_defaults

MakeNet = Callable[..., SwitchableModel]
USUAL = {"native_weight": 1.0, "crop_area": (0.35, 1.0), "start_share": 0.0, "probe_epochs": 0}
KEPT = {"weights": "w.safetensors"}


@pytest.mark.parametrize(
    ("facts", "settings", "reason"),
    [
        ({}, {}, "no trained weights are known"),
        ({**KEPT, "new_classifier": ("fc.weight",)}, {"probe_epochs": 0}, "the classifier is new"),
        (KEPT, {"train": "bn"}, "train is bn"),
    ],
)
def test_a_network_with_little_to_lose_has_the_usual_ones(
    make_net: MakeNet, facts: dict[str, Any], settings: dict[str, Any], reason: str
) -> None:
    net = make_net()
    net.source = replace(net.source, **facts)
    config = FinetuneConfig(batch_size=64, **settings)
    filled = fill_defaults(net, config, processes=2)
    assert {name: getattr(filled, name) for name in USUAL} == USUAL
    assert filled.lr == pytest.approx(0.005 * 4 / 3)
    assert str(explain_defaults(net, config)).startswith(f"usual defaults, since {reason}: lr=0.0033")


def test_a_new_classifier_of_a_trained_network_is_fitted_first(make_net: MakeNet) -> None:
    net = make_net()
    net.source = replace(net.source, **KEPT, new_classifier=("fc.weight",))
    filled = vars(fill_defaults(net, FinetuneConfig()))
    assert (filled["probe_epochs"], filled["native_weight"]) == (5, 4)
    assert "its new classifier is fitted first: lr=" in str(explain_defaults(net, FinetuneConfig()))


@pytest.mark.parametrize("facts", [KEPT, {"training": {"epoch": 1}}])
def test_a_trained_network_that_keeps_its_classifier_has_gentle_ones(make_net: MakeNet, facts: dict[str, Any]) -> None:
    net = make_net()
    net.source = replace(net.source, **facts)
    gentle = vars(fill_defaults(net, FinetuneConfig()))
    assert gentle["lr"] == pytest.approx(0.005 / 3)
    assert gentle["native_weight"] > 1
    assert gentle["probe_epochs"] == (5 if "weights" in facts else 0)
    assert gentle["crop_area"][0] > 0.35
    line = str(explain_defaults(net, FinetuneConfig()))
    assert line.startswith("gentle defaults, since the network was trained and keeps its classifier: lr=0.0016")


def test_what_is_set_stays(make_net: MakeNet) -> None:
    net = make_net()
    net.source = replace(net.source, **KEPT)
    config = FinetuneConfig(lr=0.3, native_weight=1, crop_area=(0.1, 0.2), start_share=0, probe_epochs=0)
    assert fill_defaults(net, config) == config
    assert explain_defaults(net, config) is None
    filled = fill_defaults(net, FinetuneConfig())
    assert fill_defaults(net, filled) == filled


def test_without_labels_the_native_view_weighs_as_the_others(make_net: MakeNet) -> None:
    net = make_net()
    net.source = replace(net.source, **KEPT)
    assert fill_defaults(net, FinetuneConfig(labels="none")).native_weight == 1
