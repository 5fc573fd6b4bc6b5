"""Scores of masks: golden numbers, NumPy, the bootstrap against a plain loop, logits at a mask's positions."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from rsconvert.evaluation.mask_accuracy import MaskAccuracy
from rsconvert.evaluation.overlap import (
    Overlaps,
    at_mask,
    confusion,
    count_scores,
    difference_interval,
    mask_scores,
    miou_interval,
)

GOLDEN = load_file(Path(__file__).with_name("dense.safetensors"))


def test_the_golden_case() -> None:
    labels, predicted = GOLDEN["labels"], GOLDEN["predictions"].long()
    found = Overlaps.of([confusion(p, m, 6, 255) for p, m in zip(predicted, labels, strict=True)])
    assert torch.equal(found.matrix, GOLDEN["confusion"])
    scores = mask_scores(found.matrix)
    assert scores.pixel_accuracy == pytest.approx(0.6843997124370956, abs=1e-12)
    assert scores.mean_accuracy == pytest.approx(0.6856545950465222, abs=1e-12)
    assert scores.miou == pytest.approx(0.5206658414108015, abs=1e-12)
    assert np.isnan(scores.per_class[5])  # which no mask holds
    row = MaskAccuracy.of(found, None, per_class=True)
    assert row.miou == 100 * scores.miou
    assert row.per_class is not None
    assert row.per_class[5] is None
    assert row.interval is not None
    assert row.interval[0] < row.miou < row.interval[1]


def test_a_false_prediction_of_an_absent_class_lowers_the_others() -> None:
    matrix = torch.tensor([[4, 0, 4], [0, 8, 0], [0, 0, 0]])
    assert mask_scores(matrix).miou == pytest.approx((0.5 + 1) / 2)


def draws(counts: np.ndarray) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(counts), (1000, len(counts)), generator=generator).numpy()
    values = []
    for row in rows:
        right, labelled, predicted = counts[row].sum(0).astype(float)
        with np.errstate(invalid="ignore"):
            overlap = right / (labelled + predicted - right)
        values.append(overlap[labelled > 0].mean())
    return np.array(values)


def test_the_intervals_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    cases = []
    for quality in (0.9, 0.6):
        masks = rng.integers(0, 3, (7, 9, 9))
        guesses = np.where(rng.random(masks.shape) < quality, masks, rng.integers(0, 4, masks.shape))
        pairs = zip(torch.tensor(guesses), torch.tensor(masks), strict=True)
        cases.append(Overlaps.of([confusion(guess, mask, 4, 255) for guess, mask in pairs]))
    good, bad = (case.counts for case in cases)
    own, other = draws(good.numpy()), draws(bad.numpy())
    assert miou_interval(good) == pytest.approx(tuple(100 * np.percentile(own, [2.5, 97.5])))
    assert difference_interval(good, bad) == pytest.approx(tuple(100 * np.percentile(own - other, [2.5, 97.5])))


def test_parts_are_joined_and_put_in_order() -> None:
    matrices = [torch.randint(9, (3, 3), generator=torch.Generator().manual_seed(i)) for i in range(4)]
    whole = Overlaps.of(matrices)
    parts = [Overlaps.of(matrices[2:]), Overlaps.of(matrices[:2])]
    joined = Overlaps.joined(parts, 3).taken(torch.tensor([2, 3, 0, 1]))
    assert torch.equal(joined.matrix, whole.matrix)
    assert torch.equal(joined.counts, whole.counts)
    assert Overlaps.joined([], 3).counts.shape == (0, 3, 3)


def test_logits_reach_the_positions_of_the_mask() -> None:
    logits = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    squashed = at_mask(logits, 32, (20, 40), "squash")
    assert torch.equal(squashed, F.interpolate(logits[None], (20, 40), mode="bilinear")[0])
    # Of a padded view the filled part, the lower half here, is left out.
    padded = at_mask(logits, 32, (20, 40), "pad")
    inside = F.interpolate(logits[None], (32, 32), mode="bilinear")[..., :16, :]
    assert torch.equal(padded, F.interpolate(inside, (20, 40), mode="bilinear")[0])
    whole = at_mask(logits[:, :4], 16, (20, 40), "short-side")
    assert torch.equal(whole, F.interpolate(logits[None, :, :4], (20, 40), mode="bilinear")[0])


def test_the_scores_of_one_image_are_those_of_its_counts() -> None:
    masks = [np.array([[0, 0, 1, 255]]), np.full((1, 4), 255)]
    every = [confusion(torch.tensor([[0, 1, 1, 1]]), torch.from_numpy(mask), 3, 255) for mask in masks]
    scores = count_scores(Overlaps.of(every).counts[0])
    assert scores[:3] == pytest.approx((2 / 3, 3 / 4, 1 / 2))
    assert scores.per_class[:2] == pytest.approx((1 / 2, 1 / 2))
    assert all(math.isnan(score) for score in count_scores(Overlaps.of(every).counts[1])[:3])
