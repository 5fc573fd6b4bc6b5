"""A small network, and a table of costs that this machine could have measured."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import rsconvert
from rsconvert.runtime import Benchmark, Cost, Switching, machine_key
from rsconvert.surgery import SwitchableModel

RESOLUTIONS = (64, 48, 32)


@pytest.fixture
def net() -> SwitchableModel:
    torch.manual_seed(0)
    return rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=5), RESOLUTIONS).eval()


@pytest.fixture
def table() -> Callable[..., Benchmark]:
    """A benchmark out of rows (resolution, latency in ms, top-1)."""

    def make(*rows: tuple[int, float, float | None], machine: str | None = None, **other: Any) -> Benchmark:
        own = {"form": "plain", "batch_size": 1, "parameters": 7, "p95_ms": 9.0, "images_per_second": 1.0, **other}
        costs = tuple(
            Cost(resolution=r, latency_ms=ms, top1=top1, multiply_adds=r * r, peak_memory_bytes=None, **own)
            for r, ms, top1 in rows
        )
        here = machine_key(torch.device("cpu")) if machine is None else machine
        return Benchmark(machine=here, amp="off", rounds=3, costs=costs, switching=Switching(32, 0.001))

    return make
