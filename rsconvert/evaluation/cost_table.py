"""What paths cost on machines: the result of a benchmark, and the table of it that a network keeps."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rsconvert.evaluation.latency import Switching
from rsconvert.models import Metric
from rsconvert.surgery import SwitchableModel
from rsconvert.text import Table

__all__ = ["Benchmark", "Cost", "differences", "machine_key", "processor_name", "store_costs", "stored_costs"]

_TITLES = (
    "form", "resolution", "batch", "multiply-adds (M)", "parameters (M)", "median (ms)", "p95 (ms)", "images/s",
    "memory (MiB)", "top-1 (%)",
)  # fmt: skip
_STORED = ("resolution", "form", "batch_size", "multiply_adds", "latency_ms", "top1")  # and miou, where it is known
_BETWEEN = "; "


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a path costs in one form for one batch size.

    Multiply-adds are those of one image; latencies are of the batch, median and 95th percentile; memory is what a
    forward holds at its most beyond weights and input, see ``peak_memory``, None where it can't be measured; top-1, or
    mIoU of a network of masks, is in percent, None if it was not measured.
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
    miou: float | None = None

    def cells(self) -> tuple[object, ...]:
        """Return a row of the table."""
        kind = (self.form, self.resolution, self.batch_size, f"{self.multiply_adds / 1e6:.1f}", self.parameters / 1e6)
        memory = None if self.peak_memory_bytes is None else f"{self.peak_memory_bytes / 2**20:.1f}"
        return (
            *kind,
            self.latency_ms,
            self.p95_ms,
            f"{self.images_per_second:.1f}",
            memory,
            self.top1 if self.miou is None else self.miou,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without the mIoU of a network that has none."""
        return {name: value for name, value in asdict(self).items() if name != "miou" or value is not None}


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Costs on one machine, with autocast to ``amp`` (``off``, ``bf16`` or ``fp16``), over ``rounds`` rounds."""

    machine: str
    amp: str
    rounds: int
    costs: tuple[Cost, ...]
    switching: Switching

    def with_scores(
        self, scores: Mapping[int, float], metric: Metric, int8: Mapping[int, float] | None = None
    ) -> "Benchmark":
        """Return the same with the score of each resolution, in percent: of the metric ``top1`` or ``miou``.

        The form int8 has scores of its own.
        """
        of = {"int8": int8 or {}}
        pairs = [(cost, of.get(cost.form, scores).get(cost.resolution)) for cost in self.costs]
        masks = metric.key == "miou"
        return replace(self, costs=tuple(replace(c, miou=s) if masks else replace(c, top1=s) for c, s in pairs))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "costs": [cost.to_dict() for cost in self.costs]}

    def __str__(self) -> str:
        return self._table().as_text()

    def __repr__(self) -> str:
        return f"<Benchmark of {len(self.costs)} paths and forms on {self.machine}>"

    def _repr_html_(self) -> str:
        return self._table().as_html()

    def _table(self) -> Table:
        masks = any(cost.miou is not None for cost in self.costs)
        titles = (*_TITLES[:-1], "mIoU (%)") if masks else _TITLES
        rows = [cost.cells() for cost in self.costs]
        note = f"{self.switching}\n{self.machine}; amp {self.amp}; {self.rounds} rounds"
        if len({cost.parameters for cost in self.costs}) == 1:  # one number needs no column of a wide table
            note += f"; {self.costs[0].parameters:,} parameters"
            place = titles.index("parameters (M)")
            rows = [(*row[:place], None, *row[place + 1 :]) for row in rows]
        return Table(titles, rows, note).filled()


def machine_key(device: torch.device) -> str:
    """Return device, processor, number of threads and torch's version, as in ``cpu; Intel Xeon; 2 threads; torch 2.9``.

    These are what a latency depends on in addition to the network. The threads are those of torch at the call.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return _BETWEEN.join([name, processor_name(), f"{torch.get_num_threads()} threads", f"torch {torch.__version__}"])


def differences(here: str, there: str) -> str:
    """Return what differs between two keys: ``2 threads here, 4 threads there``."""
    pairs = zip(here.split(_BETWEEN), there.split(_BETWEEN), strict=False)
    return ", ".join(f"{own} here, {other} there" for own, other in pairs if own != other)


def processor_name() -> str:
    """Return the processor's name, without a semicolon; Python itself knows only its kind on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(names, "") or platform.processor() or platform.machine()
    return name.replace(_BETWEEN.strip(), ",")


def store_costs(net: SwitchableModel, benchmark: Benchmark) -> None:
    """Note on a network what its paths cost on a machine, in place of what was noted for that machine before.

    ``save`` writes it to the file. Whatever changes a value of the network drops it.
    """
    facts = [(cost, {} if cost.miou is None else {"miou": cost.miou}) for cost in benchmark.costs]
    rows = [{**{n: getattr(cost, n) for n in _STORED}, **score, "amp": benchmark.amp} for cost, score in facts]
    net.measured = replace(net.measured, costs={**stored_costs(net), benchmark.machine: rows})


def stored_costs(net: SwitchableModel) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of each machine; none for a network that was not measured."""
    costs = net.measured.costs or {}
    return {machine: [{"top1": None, **row} for row in rows] for machine, rows in costs.items()}
