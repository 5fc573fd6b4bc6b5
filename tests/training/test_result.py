"""FinetuneResult: a sequence of rows that knows its best epoch."""

import dataclasses
from collections.abc import Sequence

import pytest

from rsconvert.training import FinetuneResult

ROWS = tuple({"epoch": epoch, "top1_32": 50.0} for epoch in (1, 2, 3))


def test_it_is_the_sequence_of_its_rows() -> None:
    result = FinetuneResult(ROWS, 2)
    assert isinstance(result, Sequence)
    assert (len(result), list(result), result[0], result[-1], result[1:]) == (3, [*ROWS], ROWS[0], ROWS[2], ROWS[1:])
    (row,) = FinetuneResult(ROWS[:1], 1)
    assert row == ROWS[0]


def test_the_best_row_is_that_of_its_epoch() -> None:
    assert FinetuneResult(ROWS, 2).best_row is ROWS[1]


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FinetuneResult(ROWS, 2).best = 1
