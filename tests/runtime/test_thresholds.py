"""fit_thresholds against a search by plain loops in NumPy; what it takes off for luck; degenerate answers."""

from itertools import combinations, product

import numpy as np
import pytest
import torch

from rsconvert.errors import ConfigError, DataError
from rsconvert.runtime.thresholds import Fitted, answering_stage, fit_thresholds

COSTS = {32: 10, 48: 22, 64: 40}


def answers(seed: int, count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Confidences (3, N) in steps, so that some are equal, and hits: larger paths have more."""
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.uniform(0.2, 1, (3, count)), 1)
    return confidence, rng.uniform(0, 1, (3, count)) < np.array([[0.2], [0.3], [0.4]]) + 0.6 * confidence


def executed(confidence: np.ndarray, right: np.ndarray, costs: list[int], limits: tuple[float, ...]) -> np.ndarray:
    """Hit and cost (N, 2) of each image, one after the other."""
    rows = []
    for sure, hit in zip(confidence.T, right.T, strict=True):
        spent = 0
        for i, cost in enumerate(costs):
            spent += cost
            if i == len(costs) - 1 or sure[i] >= limits[i]:
                rows.append((hit[i], spent))
                break
    return np.array(rows, dtype=float)


def all_choices(confidence: np.ndarray, right: np.ndarray) -> list[tuple[float, float, float]]:
    """(top-1, top-1 less its standard errors, cost) of every cascade with every combination of thresholds."""
    best = right[right.mean(1).argmax()]
    found = []
    for size in (2, 3):
        for rows in combinations(range(3), size):
            levels = [np.unique(confidence[row]) for row in rows[:-1]]
            between = [(one[1:] + one[:-1]) / 2 for one in levels]
            costs = [list(COSTS.values())[row] for row in rows]
            for limits in product(*between):
                done = executed(confidence[list(rows)], right[list(rows)], costs, limits)
                gap = done[:, 0] - best
                error = gap.std() / np.sqrt(len(gap))
                found.append((done[:, 0].mean(), done[:, 0].mean() - (size - 1) * error, done[:, 1].mean()))
    return found


def fit(confidence: np.ndarray, right: np.ndarray, **aim: float) -> Fitted:
    return fit_thresholds(torch.from_numpy(confidence).float(), torch.from_numpy(right), COSTS, **aim)


@pytest.mark.parametrize("seed", range(6))
def test_the_cheapest_that_surely_reaches_an_accuracy(seed: int) -> None:
    confidence, right = answers(seed)
    choices = all_choices(confidence, right)
    aim = sorted(sure for _, sure, _ in choices)[len(choices) // 2]
    found = fit(confidence, right, top1=100 * aim)
    assert found.multiply_adds == pytest.approx(min(cost for _, sure, cost in choices if sure >= aim - 1e-9))
    rows = [list(COSTS).index(r) for r in found.stages]
    done = executed(confidence[rows], right[rows], [COSTS[r] for r in found.stages], found.thresholds)
    assert [found.top1, found.multiply_adds] == pytest.approx([100 * done[:, 0].mean(), done[:, 1].mean()])


@pytest.mark.parametrize("seed", range(3))
def test_the_surest_that_is_cheap_enough(seed: int) -> None:
    confidence, right = answers(seed)
    choices = all_choices(confidence, right)
    found = fit(confidence, right, multiply_adds=30)
    assert found.multiply_adds <= 30
    best = max(sure for _, sure, cost in choices if cost <= 30)
    assert any(sure == pytest.approx(best) and 100 * top1 == pytest.approx(found.top1) for top1, sure, _ in choices)


def test_the_best_single_path_is_the_aim_of_itself() -> None:
    confidence, right = answers(0)
    assert fit(confidence, right) == fit(confidence, right, top1=100 * right.mean(1).max())


def test_many_images_are_fitted_on_a_grid_that_loses_little() -> None:
    confidence, _ = answers(0, 4000)
    confidence = np.random.default_rng(1).uniform(0, 1, confidence.shape)
    right = np.random.default_rng(2).uniform(0, 1, confidence.shape) < confidence ** np.array([[1], [0.5], [0.2]])
    aim = right[2].mean() - 0.02
    found = fit(confidence, right, top1=100 * aim)
    fine = []
    for limit in np.linspace(0, 1, 400):
        done = executed(confidence[[0, 2]], right[[0, 2]], [10, 40], (limit,))
        gap = done[:, 0] - right[2]
        if done[:, 0].mean() - gap.std() / np.sqrt(len(gap)) >= aim:
            fine.append(done[:, 1].mean())
    assert found.multiply_adds <= 1.02 * min(fine)


def test_the_first_stage_that_is_sure_answers_and_the_last_always() -> None:
    confidence = torch.tensor([[0.9, 0.1, 0.5, torch.nan], [0.1, 0.9, 0.1, torch.nan], [0.0, 0.0, 0.0, torch.nan]])
    assert answering_stage(confidence, (0.5, 0.8)).tolist() == [0, 1, 0, 2]


def test_no_number_is_never_sure() -> None:
    confidence, right = answers(0)
    broken = confidence.copy()
    broken[0, :10] = np.nan
    found = fit(broken, right)
    rows = [list(COSTS).index(r) for r in found.stages]
    done = executed(broken[rows], right[rows], [COSTS[r] for r in found.stages], found.thresholds)
    assert [found.top1, found.multiply_adds] == pytest.approx([100 * done[:, 0].mean(), done[:, 1].mean()])
    assert all(np.isfinite(found.thresholds))


@pytest.mark.parametrize(
    ("aim", "words"),
    [
        ({"top1": 99.99}, "accuracy is 99.99; no cascade reaches it"),
        ({"multiply_adds": 5}, "multiply_adds is 5; the cheapest cascade takes"),
        ({"top1": 50, "multiply_adds": 30}, "one of them can be the aim"),
    ],
)
def test_what_can_not_be_had_is_refused(aim: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fit(*answers(0), **aim)


def test_equal_confidences_leave_nothing_to_choose() -> None:
    _, right = answers(0)
    with pytest.raises(DataError, match="equally sure"):
        fit(np.ones(right.shape), right)
