"""What makes an evaluation meaningless is said: broken values, broken logits, classes that are never predicted."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rsconvert.evaluation import Predictions, doubts, unsound_values
from rsconvert.evaluation.overlap import Overlaps
from rsconvert.evaluation.subject import Answers


def predictions(best: list[int], confidence: list[float]) -> Predictions:
    """Ten images, five of each class."""
    answers = Answers(torch.tensor(best), torch.tensor(confidence), torch.zeros(10, dtype=torch.bool))
    return Predictions(torch.tensor([0] * 5 + [1] * 5), ("cat", "dog"), {}, {"net": {48: answers, None: answers}})


def test_sound_predictions_give_no_line() -> None:
    assert list(doubts(predictions([0, 1] * 5, [0.5] * 10))) == []


def test_a_class_that_is_never_predicted_is_named() -> None:
    lines = list(doubts(predictions([0] * 10, [0.5] * 10)))
    assert lines == [f"{where} never predicts 1 of 2 classes: dog" for where in ("net at 48", "the ensemble of net")]


def test_logits_that_are_not_finite_are_counted() -> None:
    lines = list(doubts(predictions([0] * 10, [0.5] * 7 + [float("nan")] * 3)))
    assert lines[0] == "net at 48 gives logits that are not finite for 3 of 10 images"


def test_masks_say_the_same_of_their_classes_and_logits() -> None:
    """Six images of two positions, one of each of two classes; the third class is in one image alone."""
    counted = torch.tensor([[1, 1, 0]] * 5 + [[1, 0, 1]])
    first, last = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 0, 0]]), torch.tensor([[1, 0, 0], [0, 0, 0], [1, 0, 0]])
    found = Overlaps.of([first] * 5 + [last])
    predictions = Predictions(counted, ("sky", "cat", "dog"), {}, overlaps={"net": {48: found, None: found}})
    lines = list(doubts(predictions))
    assert lines == [f"{where} never predicts 1 of 3 classes: cat" for where in ("net at 48", "the ensemble of net")]
    parts = [Overlaps.of([first] * 4, broken=2), Overlaps.of([first, last], broken=1)]
    joined = Overlaps.joined(parts, 3).taken(torch.arange(6))
    (line,) = doubts(replace(predictions, overlaps={"net": {48: joined}}))
    assert line == "net at 48 gives logits that are not finite for 3 of 6 images"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(value: float) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert unsound_values(net) is None
    net[1].running_var[0] = value
    assert unsound_values(net) == (
        "1 tensors hold values that are not finite: 1.running_var; what the network predicts means nothing"
    )
