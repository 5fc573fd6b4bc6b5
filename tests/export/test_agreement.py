"""What counts as agreement, on numbers that are known beforehand."""

import json
import math

import pytest
import torch

from rsconvert.errors import CheckpointError
from rsconvert.export import Agreement, Verification
from rsconvert.export.agreement import compare

X = torch.zeros(2, 3, 4, 4)
EXPECTED = torch.tensor([[1.0, 2.0, -4.0], [10.0, 0.0, 0.0]])


def compared(change: list[list[float]], tolerance: float = 1e-4, expected: torch.Tensor = EXPECTED) -> Agreement:
    return compare(lambda _: expected + torch.tensor(change), X, expected, tolerance)


def test_the_difference_is_relative_to_each_image_and_the_largest_counts() -> None:
    row = compared([[0, 0.5, 0], [1.0, 0, 0]])
    assert (row.difference, row.images, row.clear, row.agreeing) == (0.125, 2, 2, 2)
    assert compared([[0, 0, 0], [0, 0, 0]]) == Agreement(0.0, 2, 2, 2)


def test_another_class_counts_unless_the_best_two_are_close() -> None:
    assert (compared([[1.5, 0, 0], [0, 0, 0]])).agreeing == 1
    close = torch.tensor([[4.0, 4.0001, 0.0], [1.0, 0.0, 0.0]])
    row = compared([[0.0002, 0, 0], [0, 0, 0]], expected=close)
    assert (row.clear, row.agreeing) == (1, 1)
    assert row.difference < 1e-4


def test_dense_logits_count_every_position() -> None:
    expected = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    row = compare(lambda _: expected.flip(1), X, expected, 1e-4)
    assert row.clear == 40
    assert row.agreeing < 40
    assert compare(lambda _: expected.clone(), X, expected, 1e-4).agreeing == 40


def test_logits_of_zeros_agree_with_themselves_alone() -> None:
    zeros = torch.zeros(2, 3)
    assert compare(lambda _: zeros, X, zeros, 1e-4) == Agreement(0.0, 2, 0, 0)
    assert compare(lambda _: zeros + 1e-3, X, zeros, 1e-4).difference == math.inf


def test_one_output_has_no_classes() -> None:
    assert compare(lambda _: torch.ones(2, 1), X, torch.ones(2, 1), 1e-4) == Agreement(0.0, 2)


def test_what_is_no_number_has_another_shape_or_fails_never_passes() -> None:
    assert compared([[math.nan, 0, 0], [0, 0, 0]]).difference == math.inf
    other = compare(lambda _: EXPECTED[:1], X, EXPECTED, 1e-4)
    assert (other.difference, other.failure) == (math.inf, "it gives (1, 3), not (2, 3)")
    failed = compare(lambda _: EXPECTED.view(5), X, EXPECTED, 1e-4)
    assert failed.failure is not None
    assert failed.failure.startswith("it fails: shape '[5]' is invalid")


def test_rows_add_up() -> None:
    both = Agreement(0.1, 2, 2, 1, 2) + Agreement(0.3, 1, 1, 1, failure="why")
    assert both == Agreement(0.3, 3, 3, 2, 2, "why")


def test_what_rounding_may_explain_is_compared_in_double_precision() -> None:
    asked: list[torch.Tensor] = []

    def exact(x: torch.Tensor) -> torch.Tensor:
        asked.append(x)
        return EXPECTED[1:].double() + 2e-3

    got = EXPECTED + torch.tensor([[0.0, 0, 0], [2e-3, 2e-3, 2e-3]])
    row = compare(lambda _: got, X, EXPECTED, 1e-4, exact)
    assert torch.equal(asked[0], X[1:])
    assert row.difference < 1e-6
    assert (row.float64, row.images) == (1, 2)
    assert "1 compared in float64" in str(Verification(1e-4, {"64": row}))


def test_what_is_really_wrong_or_has_no_double_stays_wrong() -> None:
    def exact(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("rounding can't explain it")

    assert compare(lambda _: EXPECTED + 1.0, X, EXPECTED, 1e-4, exact).difference > 0.1
    row = compare(lambda _: EXPECTED + 2e-3, X, EXPECTED, 1e-4, lambda x: None)
    assert (row.difference > 1e-4, row.float64) == (True, 0)
    off = compare(lambda _: EXPECTED + 2e-3, X, EXPECTED, 1e-4, lambda x: EXPECTED.double()[: len(x)])
    assert off.difference > 1e-4


@pytest.mark.parametrize(
    ("row", "passed"),
    [
        (Agreement(1e-4, 5, 5, 5), True),
        (Agreement(1.1e-4, 5, 5, 5), False),
        (Agreement(0.0, 5, 5, 4), False),
        (Agreement(math.inf, 5, failure="it fails: why"), False),
    ],
)
def test_the_verdict(row: Agreement, passed: bool) -> None:
    result = Verification(1e-4, {"64": Agreement(0.0, 5, 5, 5), "48": row})
    assert result.passed is passed
    assert result.to_dict()["passed"] is passed
    assert "Infinity" not in json.dumps(result.to_dict())
    if passed:
        assert result.check("x.onnx") is None
        assert str(result).endswith("agrees: largest difference 1.0e-04, 0.0001 is accepted")
    else:
        with pytest.raises(CheckpointError, match=r"^x\.onnx disagrees with the network at 48 \(48: "):
            result.check("x.onnx")
        assert "disagrees" in str(result)
