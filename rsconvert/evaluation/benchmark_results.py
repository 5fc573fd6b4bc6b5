"""Results of a benchmark: what paths cost, as data and as a table."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rsconvert.evaluation.switching import Switching

__all__ = ["Benchmark", "Cost"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a path costs in one form for one batch size.

    Multiply-adds are those of one image; latencies are of the batch, median and 95th percentile; memory is what a
    forward holds at its most beside weights and input, see ``peak_memory``, None where it can't be seen; top-1 is in
    percent, None if it was not measured.
    """

    form: str
    resolution: int
    batch_size: int
    multiply_adds: int
    parameters: int
    latency_ms: float
    p95_ms: float
    images_per_second: float
    peak_memory_bytes: int | None
    top1: float | None = None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Costs on one machine, with autocast to ``amp`` (``off``, ``bf16`` or ``fp16``), over ``rounds`` rounds."""

    machine: str
    amp: str
    rounds: int
    costs: tuple[Cost, ...]
    switching: Switching

    def with_top1(self, top1: Mapping[int, float]) -> "Benchmark":
        """Return the same with the top-1 of each resolution, in percent."""
        return replace(self, costs=tuple(replace(cost, top1=top1.get(cost.resolution)) for cost in self.costs))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        facts = {"machine": self.machine, "amp": self.amp, "rounds": self.rounds}
        return {**facts, "costs": [asdict(cost) for cost in self.costs], "switching": asdict(self.switching)}

    def __str__(self) -> str:
        titles = ("form", "resolution", "batch", "multiply-adds (M)", "parameters (M)", "median (ms)", "p95 (ms)")
        cells = [(*titles, "images/s", "memory (MiB)", "top-1 (%)"), *(_cells(cost) for cost in self.costs)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        return "\n".join([*lines, str(self.switching), f"{self.machine}; amp {self.amp}; {self.rounds} rounds"])


def _cells(cost: Cost) -> tuple[str, ...]:
    memory = "" if cost.peak_memory_bytes is None else f"{cost.peak_memory_bytes / 2**20:.1f}"
    counts = (f"{cost.multiply_adds / 1e6:.1f}", f"{cost.parameters / 1e6:.2f}")
    times = (f"{cost.latency_ms:.2f}", f"{cost.p95_ms:.2f}", f"{cost.images_per_second:.1f}")
    top1 = "" if cost.top1 is None else f"{cost.top1:.2f}"
    return (cost.form, str(cost.resolution), str(cost.batch_size), *counts, *times, memory, top1)
