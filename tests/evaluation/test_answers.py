"""Answers read off logits, joined, and taken in another order."""

import torch

from rsconvert.evaluation import Answers

LOGITS = torch.tensor([[0.0, 3.0, 1.0, 1.5, 2.0, 2.5], [9.0, 0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])


def test_answers_follow_from_logits() -> None:
    found = Answers.of(LOGITS, torch.tensor([0, 1, 5]))
    assert found.best.tolist() == [1, 0, 5]
    assert found.among_five.tolist() == [False, False, True]
    odds = LOGITS.double().exp()
    torch.testing.assert_close(found.confidence, (odds.amax(1) / odds.sum(1)).float())
    assert found.logits is None


def test_parts_join_and_an_order_is_taken() -> None:
    targets = torch.tensor([0, 1, 5])
    parts = [Answers.of(LOGITS[rows], targets[rows], keep_logits=True) for rows in (slice(1), slice(1, 3))]
    whole = Answers.joined([*parts, Answers.joined([])])
    assert whole.logits is not None
    assert torch.equal(whole.logits, LOGITS)
    turned = whole.taken(torch.tensor([2, 0]))
    assert turned.best.tolist() == [5, 1]
    assert turned.among_five.tolist() == [True, False]
    assert turned.logits is not None
    assert torch.equal(turned.logits, LOGITS[[2, 0]])
    assert len(Answers.joined([]).best) == 0
