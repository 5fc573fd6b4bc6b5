"""The table of costs: what a file may hold."""

from typing import Any

import pytest

from rsconvert.checkpoint.costs import check_costs, valid_costs

ROW = {"resolution": 64, "form": "plain", "batch_size": 1, "amp": "off", "multiply_adds": 9, "latency_ms": 1.5}


def test_whole_rows_are_accepted() -> None:
    check_costs({})
    check_costs({"A": [{**ROW, "top1": 50.5}, ROW, {**ROW, "top1": None, "further": "x", "latency_ms": 2}], "B": []})


@pytest.mark.parametrize(
    "fields",
    [
        {"resolution": 64.0}, {"resolution": 0}, {"resolution": True}, {"resolution": None}, {"batch_size": "1"},
        {"multiply_adds": -1}, {"form": 1}, {"amp": None}, {"latency_ms": "1"}, {"latency_ms": -1.0},
        {"latency_ms": float("nan")}, {"latency_ms": None}, {"latency_ms": True}, {"top1": "high"}, {"top1": [1]},
    ],
)  # fmt: skip
def test_other_rows_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="costs of 'A'"):
        check_costs({"A": [ROW, {**ROW, **fields}]})


@pytest.mark.parametrize("rows", [{}, None, 5, [5], [{}]])
def test_what_is_no_list_of_rows_is_refused(rows: Any) -> None:
    with pytest.raises(ValueError, match="costs of 'A'"):
        check_costs({"A": rows})


def test_no_rows_are_no_table() -> None:
    assert valid_costs(None, (64, 48), (64,)) is None
    assert valid_costs({"A": [{**ROW, "resolution": 48}]}, (64, 48), (64,)) is None
    assert valid_costs({"A": [ROW]}, (64, 48), (64,)) == {"A": [ROW]}
