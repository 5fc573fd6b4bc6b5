"""The table of costs in a file: what its rows must hold, and which of them a part of the network keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

from rsconvert.surgery import interpolation_weights

__all__ = ["check_costs", "valid_costs"]

_COUNTS = ("resolution", "batch_size", "multiply_adds")
_Costs = Mapping[str, Sequence[Mapping[str, Any]]]


def check_costs(costs: Mapping[str, Any]) -> None:
    """See that a table out of a file is well typed.

    Raises:
        ValueError: it is not.
    """
    for machine, rows in costs.items():
        if type(rows) is not list or not all(type(row) is dict and _is_well_typed(row) for row in rows):
            raise ValueError(f"costs of {machine!r} hold a row of other fields or types")


def valid_costs(costs: _Costs | None, resolutions: Sequence[int], kept: Sequence[int]) -> _Costs | None:
    """Return the rows of the paths that are the same with the sets of ``kept`` as they were with all; None without any.

    A path at an untrained resolution is another one if one of the two sets goes between which it was interpolated.
    """

    def stays(resolution: int) -> bool:
        return _mixture(resolution, resolutions) == _mixture(resolution, kept)

    found = {machine: [row for row in rows if stays(row["resolution"])] for machine, rows in (costs or {}).items()}
    return {machine: rows for machine, rows in found.items() if rows} or None


def _mixture(resolution: int, resolutions: Sequence[int]) -> dict[int, float]:
    weights = interpolation_weights(resolution, resolutions)
    return {r: weight for r, weight in zip(resolutions, weights, strict=True) if weight > 0}


def _is_well_typed(row: Mapping[str, Any]) -> bool:
    counts = all(type(row.get(name)) is int and row[name] > 0 for name in _COUNTS)
    words = all(type(row.get(name)) is str for name in ("form", "amp"))
    return counts and words and _is_number(row.get("latency_ms")) and _is_number(row.get("top1") or 0)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and value >= 0  # type: ignore[operator]  # false for nan
