"""Data that does not fit a network is refused in one line, before anything runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rsconvert.data import Preprocessing, Samples
from rsconvert.errors import DataError, UnsupportedModelError
from rsconvert.evaluation import check_classes, check_classifies, check_colours
from rsconvert.evaluation.fitting import check_targets, known_source, open_labelled
from rsconvert.models import Task
from rsconvert.runtime import fit_cascade
from rsconvert.study import complementarity_of, pooled_values
from rsconvert.surgery import SwitchableModel, make_switchable

CLASSES = tuple("abcdefgh")
SAMPLES = Samples([], "photos", CLASSES)


@pytest.fixture
def net(tiny: Callable[..., Any]) -> SwitchableModel:
    return make_switchable(tiny(classes=8), (32, 24))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"num_classes": 5}, r"the data has 8 classes, the classifier 5 outputs.*--num-classes 8.*--class-map"),
        ({"class_names": (*CLASSES[:-1], "z")}, "the class 'h' where the network was trained on 'z'"),
        ({"class_names": CLASSES[:3]}, "the class 8 where the network was trained on 3"),
    ],
)
def test_classes_that_do_not_fit_are_refused(net: SwitchableModel, facts: dict[str, Any], expected: str) -> None:
    net.source = replace(net.source, **facts)
    with pytest.raises(DataError, match=expected) as caught:
        check_classes(net, SAMPLES)
    assert "\n" not in str(caught.value)


def test_classes_without_names_pass(net: SwitchableModel) -> None:
    net.source = replace(net.source, num_classes=8, class_names=CLASSES)
    check_classes(net, Samples([], "photos", None))
    check_classes(net, SAMPLES)


def test_with_a_map_the_network_may_know_more(net: SwitchableModel) -> None:
    net.source = replace(net.source, num_classes=1000, class_names=("z",))
    check_classes(net, SAMPLES, range(992, 1000))
    with pytest.raises(DataError, match=r"the class map has the index 1000; the network has 1000 outputs, so 0 to 999"):
        check_classes(net, SAMPLES, range(993, 1001))


def test_photos_are_given_to_networks_of_colours_and_of_grey(tiny: Callable[..., Any]) -> None:
    model = tiny()
    check_colours(model)
    model.conv1 = torch.nn.Conv2d(1, 8, 3)
    net = make_switchable(model, (32, 24))
    for one in (model, net):
        check_colours(one)
        assert known_source(one).preprocessing == Preprocessing().for_channels(1)
    net.source = replace(net.source, preprocessing=Preprocessing())
    with pytest.raises(DataError, match="the network's mean has 3 numbers, and its images have the channels 1"):
        check_colours(net)
    model.conv1 = torch.nn.Conv2d(4, 8, 3)
    with pytest.raises(DataError, match="the network takes images of 4 channels; a photo has 3, or 1 in grey"):
        check_colours(make_switchable(model, (32, 24)))


def test_a_target_needs_its_column() -> None:
    logits = torch.zeros(2, 4)
    check_targets(torch.tensor([0, 3]), logits)
    check_targets(torch.tensor([0, 1]), logits, (3, 0))
    with pytest.raises(DataError, match="a target is 4; the network has 4 outputs"):
        check_targets(torch.tensor([0, 4]), logits)
    with pytest.raises(DataError, match="a target is 2; the network has 2 outputs"):
        check_targets(torch.tensor([0, 2]), logits, (3, 0))
    with pytest.raises(DataError, match="the class map has the index 4; the network has 4 outputs, so 0 to 3"):
        check_targets(torch.tensor([0, 1]), logits, (4, 0))


def test_what_needs_a_prediction_for_each_image_refuses_masks(net: SwitchableModel) -> None:
    check_classifies(net, "a cascade")
    net.source = replace(net.source, task=Task(name="segmentation"))
    with pytest.raises(UnsupportedModelError, match=r"a cascade needs one prediction for each image, .*rsconvert eval"):
        check_classifies(net, "a cascade")
    for measure in (
        lambda: fit_cascade(net, "nowhere"),
        lambda: complementarity_of([{"": net}], "nowhere"),
        lambda: pooled_values(net, "nowhere"),
    ):
        with pytest.raises(UnsupportedModelError, match="needs one prediction for each image"):
            measure()


def test_images_of_the_training_among_those_measured_are_said(
    net: SwitchableModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place in ("plain/a", "plain/b", "photos/val/a"):
        (tmp_path / place).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / place / f"{i}.png")
    plain = str(tmp_path / "plain")
    open_labelled(net, plain, "val")
    net.source = replace(net.source, training={"split": 0.5})
    open_labelled(net, plain, 0.5)
    open_labelled(net, str(tmp_path / "photos"), "val")
    assert caplog.messages == []
    open_labelled(net, plain, "val")
    open_labelled(net, plain, 0.75)
    assert len(caplog.messages) == 2
    assert all("evaluate --split 0.5 measures the others alone" in line for line in caplog.messages)
