"""Latency: many runs timed by turns, so that what disturbs the machine disturbs all alike."""

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

__all__ = ["Latency", "measure_latency"]

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Latency:
    """Median and 95th percentile of a run's time, in milliseconds."""

    median_ms: float
    p95_ms: float


def measure_latency(
    runs: Mapping[_Key, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 3,
    device: torch.device | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[_Key, Latency]:
    """Time each run once a round, beginning with another one from round to round.

    Between two percentiles the value is interpolated linearly.

    Args:
        rounds: how many are counted, after ``warm_up`` rounds that are not.
        device: a GPU is waited for before and after each run; its work is not done when a call returns.
        clock: tells seconds.
    """
    names = list(runs)
    seconds: dict[_Key, list[float]] = {name: [] for name in names}
    for i in range(warm_up + rounds):
        for j in range(len(names)):
            name = names[(i + j) % len(names)]
            took = _time(runs[name], device, clock)
            if i >= warm_up:
                seconds[name].append(took)
    return {name: _summary(column) for name, column in seconds.items()}


def _time(run: Callable[[], object], device: torch.device | None, clock: Callable[[], float]) -> float:
    _wait(device)
    start = clock()
    result = run()
    _wait(device)
    took = clock() - start
    del result  # freeing it is not part of the run
    return took


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(seconds: list[float]) -> Latency:
    median, p95 = np.percentile([1e3 * value for value in seconds], [50, 95])
    return Latency(float(median), float(p95))
