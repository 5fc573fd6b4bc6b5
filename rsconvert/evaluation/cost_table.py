"""The query table: what a benchmark found, noted on a network, from where it goes to the file."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rsconvert.evaluation.benchmark_results import Benchmark
from rsconvert.surgery import SwitchableModel

__all__ = ["store_costs", "stored_costs"]

_FIELDS = ("resolution", "form", "batch_size", "multiply_adds", "latency_ms", "top1")


def store_costs(net: SwitchableModel, benchmark: Benchmark) -> None:
    """Note on a network what its paths cost on a machine, in place of what was noted for that machine before.

    ``save`` writes it to the file. Whatever changes a value of the network drops it.
    """
    rows = [{**{name: getattr(cost, name) for name in _FIELDS}, "amp": benchmark.amp} for cost in benchmark.costs]
    net.measured = replace(net.measured, costs={**stored_costs(net), benchmark.machine: rows})


def stored_costs(net: SwitchableModel) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of each machine; none for a network that was not measured."""
    costs = net.measured.costs or {}
    return {machine: [{"top1": None, **row} for row in rows] for machine, rows in costs.items()}
