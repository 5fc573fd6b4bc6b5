from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rsconvert.evaluation import Predictions
from rsconvert.evaluation.subject import Answers
from rsconvert.study.report.facts import answer_facts, drawn_facts, network_facts


def predictions(targets: list[int], answers: dict[Any, list[int]], classes: tuple[str, ...] | None) -> Predictions:
    def said(best: list[int]) -> Answers:
        given: Tensor = torch.tensor(best)
        return Answers(given, torch.full((len(best),), 0.5), given == torch.tensor(targets))

    subject: Any = SimpleNamespace(costs=dict.fromkeys(answers, 7), interpolated=lambda size: size == 48)
    own = {size: said(best) for size, best in answers.items()}
    return Predictions(torch.tensor(targets), classes, {"network": own}, {"network": subject})


def test_complementarity_and_confusion_by_hand() -> None:
    found = predictions([0, 0, 1, 1], {32: [0, 1, 1, 0], 64: [0, 0, 0, 1]}, ("a", "b"))
    facts = answer_facts(found)
    assert facts["sizes"] == ["64", "32"]
    # 64 is right on 0, 1, 3; 32 on 0, 2.
    assert facts["complementarity"] == [[0, 50], [25, 0]]
    assert facts["any_path"] == 100
    assert facts["confusion"] == {"64": [[2, 0], [1, 1]], "32": [[1, 1], [1, 1]]}
    assert facts["mistakes"] is None
    assert facts["classes"] == ["a", "b"]


def test_many_classes_give_the_most_frequent_mistakes() -> None:
    targets = [*range(30), 5, 5, 7]
    answers = [*range(30), 6, 6, 8]
    facts = answer_facts(predictions(targets, {64: answers}, tuple(map(str, range(30)))))
    assert facts["confusion"] is None
    assert facts["mistakes"] == {"64": [(5, 6, 2), (7, 8, 1)]}


def test_classes_without_names_are_counted() -> None:
    assert answer_facts(predictions([0, 1], {32: [0, 4]}, None))["classes"] == ["0", "1", "2", "3", "4"]


def test_labels_stand_for_names() -> None:
    assert answer_facts(predictions([0, 1], {32: [0, 1]}, ("n1", "n2")), ["x", "y"])["classes"] == ["x", "y"]


def test_drawn_images_keep_their_answers() -> None:
    found = predictions([0, 1, 1], {64: [0, 1, 0], None: [1, 1, 1]}, ("a", "b"))
    (row,) = drawn_facts(found, [2], ["c"])
    assert row == {"index": 2, "name": "c", "target": 1, "answers": {"network": {"64": [0, 0.5], "ensemble": [1, 0.5]}}}


def test_parameters_are_counted_without_alpha(written: Any) -> None:
    facts = network_facts(written.net)
    private = sum(p.numel() for _, bn in written.net.switchable_bns() for p in bn.bn_set(32).parameters())
    assert facts["parameters"] == facts["plain_parameters"] + private
    assert facts["importance"] == {"48": pytest.approx(0.5), "32": pytest.approx(0.5)}
    assert facts["resolutions"] == [48, 32]
