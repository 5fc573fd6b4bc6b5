"""Intervals, tests and calibration against other formulas and published figures."""

import math
from itertools import pairwise
from math import comb

import numpy as np
import pytest
import torch

from rsconvert.evaluation import wilson_interval
from rsconvert.evaluation.uncertainty import calibration_error, mcnemar, mean_interval


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (1, 3), (1403, 1500), (37_000, 50_000)])
def test_the_ends_of_wilson_s_interval_solve_its_equation(hits: int, count: int) -> None:
    """An end p is where the observed rate lies 1.96 standard errors, those of p, away."""
    for end in wilson_interval(hits, count):
        p = end / 100
        assert (hits / count - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / count, rel=1e-5, abs=1e-12)


def test_the_interval_holds_the_rate_and_stays_within_bounds() -> None:
    low, high = wilson_interval(0, 5)
    assert low == 0
    assert 43 < high < 44, "43.4 in the tables"
    assert wilson_interval(5, 5) == pytest.approx((100 - high, 100))


@pytest.mark.parametrize(("one", "other"), [(0, 0), (3, 3), (0, 6), (1, 9), (25, 40), (400, 500)])
def test_mcnemar_is_the_two_sided_binomial_test(one: int, other: int) -> None:
    n, k = one + other, min(one, other)
    wanted = min(1.0, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n)
    assert mcnemar(one, other) == pytest.approx(wanted, rel=1e-9) == pytest.approx(mcnemar(other, one))


def test_the_calibration_error_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 500).astype(np.float32)
    confidence[0] = 1.0
    right = rng.uniform(size=500) < confidence**2
    edges, total = np.linspace(0, 1, 16), 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(torch.tensor(confidence), torch.tensor(right)) == pytest.approx(100 * total)


def test_a_network_that_is_sure_and_wrong_is_off_by_all() -> None:
    assert calibration_error(torch.ones(4), torch.zeros(4, dtype=torch.bool)) == 100
    assert calibration_error(torch.ones(4), torch.ones(4, dtype=torch.bool)) == 0


def test_a_network_that_overflows_is_not_sure() -> None:
    confidence = torch.tensor([torch.nan, 1.0])
    assert calibration_error(confidence, torch.tensor([False, True])) == 0
    assert calibration_error(confidence, torch.tensor([True, True])) == 50


@pytest.mark.parametrize("alone", [(9, 1), (3, 0), (6, 0), (0, 0)])
def test_a_paired_interval_is_that_of_bonett_and_price(alone: tuple[int, int]) -> None:
    first, second = alone
    differences = torch.tensor([1.0] * first + [-1.0] * second + [0.0] * (100 - first - second))
    p, q, n = (first + 1) / 102, (second + 1) / 102, 102
    half = 1.959963984540054 * math.sqrt((p + q - (p - q) ** 2) / n)
    found = mean_interval(differences, (-1.0, 1.0))
    assert found == pytest.approx((100 * (p - q - half), 100 * (p - q + half)))
    assert (found[0] > 0) == (mcnemar(first, second) < 0.05)


def test_the_interval_of_a_mean_covers_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.rand((2000, 150), generator=generator) < 0.9).double()
    inside = [low <= 90 <= high for low, high in (mean_interval(values, (0.0, 1.0)) for values in drawn)]
    assert 0.93 < sum(inside) / len(inside) < 0.98
