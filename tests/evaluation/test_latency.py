"""Latencies by a clock whose time is known."""

import statistics
from collections.abc import Callable

import pytest
import torch

from rsconvert.evaluation.latency import measure_latency


class Clock:
    """Time passes only where a run says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def run(self, name: str, seconds: list[float]) -> Callable[[], None]:
        left = iter(seconds)

        def take() -> None:
            self.order.append(name)
            self.now += next(left)

        return take


def test_median_and_p95_of_the_rounds_that_count() -> None:
    clock, generator = Clock(), torch.Generator().manual_seed(0)
    times = torch.rand(40, generator=generator).tolist()
    found = measure_latency({"a": clock.run("a", [99, 98, *times])}, rounds=40, warm_up=2, clock=clock)
    assert found["a"].median_ms == pytest.approx(1e3 * statistics.median(times))
    assert found["a"].p95_ms == pytest.approx(1e3 * statistics.quantiles(times, n=20, method="inclusive")[-1])


def test_runs_go_by_turns_and_each_begins_once() -> None:
    clock = Clock()
    runs = {name: clock.run(name, [float(i)] * 3) for i, name in enumerate("abc")}
    found = measure_latency(runs, rounds=2, warm_up=1, clock=clock)
    assert "".join(clock.order) == "abcbcacab"
    assert [found[name].median_ms for name in "abc"] == [0, 1000, 2000]


def test_a_gpu_is_waited_for_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seen = Clock(), []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: seen.append(len(clock.order)))
    device = torch.device("cuda")
    measure_latency({"a": clock.run("a", [1.0, 1.0])}, rounds=2, warm_up=0, device=device, clock=clock)
    assert seen == [0, 1, 1, 2]
