"""Task: the adapter from whatever a network returns to its logits; networks that are recognised."""

import sys
from collections import namedtuple
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from rsconvert.errors import ConfigError, UnsupportedModelError
from rsconvert.models import Task, chosen_task, classifier_keys, count_outputs, recognised_task

LABELS, MASKS = torch.zeros(2, 5), torch.zeros(2, 5, 4, 4)
Pair = namedtuple("Pair", ["out", "aux"])
SEGMENTATION = Task(name="segmentation", output="out", auxiliary={"aux": 0.5})


@pytest.mark.parametrize(
    ("task", "output", "expected"),
    [
        (Task(), LABELS, LABELS),
        (Task(output="logits"), {"logits": LABELS, "hidden": MASKS}, LABELS),
        (Task(output="1"), (MASKS, LABELS), LABELS),
        (Task(output="out"), Pair(LABELS, None), LABELS),
        (Task(output="out"), LABELS, LABELS),  # as some networks give in eval mode
        (SEGMENTATION, {"out": MASKS, "aux": MASKS + 1}, MASKS),
        (Task(name="segmentation"), MASKS, MASKS),
    ],
)
def test_the_logits_are_found(task: Task, output: Any, expected: torch.Tensor) -> None:
    assert task.logits(output) is expected


@pytest.mark.parametrize(
    ("task", "output", "told"),
    [
        (Task(), {"out": MASKS, "aux": MASKS}, r"a dict; logits \(N, classes\) are needed.*--output-key\): out, aux"),
        (Task(), MASKS, r"shape \(2, 5, 4, 4\); logits \(N, classes\).*task=segmentation"),
        (Task(name="segmentation"), LABELS, r"shape \(2, 5\); logits \(N, classes, H, W\)"),
        (Task(name="segmentation", output="mask"), {"out": MASKS}, "'mask' is a NoneType.*: out; or wrap"),
        (Task(), Pair(LABELS, LABELS), "a Pair; .*: out, aux"),
        (Task(), (LABELS, LABELS), "a tuple; .*: 0, 1"),
    ],
)
def test_what_holds_no_logits_is_refused_in_one_line(task: Task, output: Any, told: str) -> None:
    with pytest.raises(UnsupportedModelError, match=told) as caught:
        task.logits(output)
    assert "\n" not in str(caught.value)


def test_auxiliary_outputs_are_found_and_missed() -> None:
    assert SEGMENTATION.auxiliary_logits({"out": MASKS, "aux": MASKS + 1})[0].mean() == 1
    assert SEGMENTATION.auxiliary_logits(MASKS) == []
    with pytest.raises(UnsupportedModelError, match="'aux' is a NoneType"):
        SEGMENTATION.auxiliary_logits({"out": MASKS})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": "detection"}, "task is 'detection'; classification, segmentation are accepted"),
        ({"ignore_index": 255}, "ignore_index is 255 and the task is classification"),
        ({"name": "segmentation", "ignore_index": "void"}, "ignore_index is 'void'; a whole number"),
        ({"output": "out", "auxiliary": {"out": 0.5}}, "auxiliary has 'out'"),
        ({"output": "out", "auxiliary": {"aux": -1}}, "auxiliary has 'aux' with -1"),
    ],
)
def test_a_bad_value_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Task(**values)


def test_networks_of_torchvision_are_recognised() -> None:
    models = torchvision.models.segmentation
    small = models.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    assert recognised_task(small) == Task(name="segmentation", output="out")
    assert count_outputs(small) == 4
    assert sorted(classifier_keys(small)) == [
        f"classifier.{name}_classifier.{tensor}" for name in ("high", "low") for tensor in ("bias", "weight")
    ]


def test_the_classifiers_of_a_network_with_an_auxiliary_head() -> None:
    model = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=3, aux_loss=True
    )
    assert recognised_task(model) == SEGMENTATION
    assert {key.rpartition(".")[0] for key in classifier_keys(model)} == {"classifier.4", "aux_classifier.4"}


def test_networks_of_segmentation_models_pytorch_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("segmentation_models_pytorch.base.model")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    kind = type("Unet", (nn.Module,), {"__module__": module.__name__})
    model = kind()
    assert recognised_task(model) == Task(name="segmentation")
    model.classification_head = nn.Identity()
    assert recognised_task(model) == Task(name="segmentation", output="0")


def test_what_is_given_overrides_what_is_recognised() -> None:
    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    assert chosen_task(model, Task(), {"ignore_index": 0}).ignore_index == 0
    assert chosen_task(model, Task(), {"ignore_index": 0}).output == "out"
    assert chosen_task(model, Task(), "classification") == Task()
    assert chosen_task(nn.Identity(), SEGMENTATION, {"output": "aux"}) == Task(name="segmentation", output="aux")
    assert chosen_task(nn.Identity(), Task(), "segmentation").ignore_index == 255
