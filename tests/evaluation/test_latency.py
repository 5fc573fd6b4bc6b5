"""Latencies by a clock whose time is known; what is timed of a switch, and what is left out."""

import statistics
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import rsconvert
from rsconvert.errors import ResolutionError
from rsconvert.evaluation import latency
from rsconvert.evaluation.latency import Switching, measure_latency, measure_switching
from rsconvert.surgery import SwitchableModel


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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=clock))
    return clock


def test_median_and_p95_of_the_rounds_that_count(clock: Clock) -> None:
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(40, generator=generator).tolist()
    found = measure_latency({"a": clock.run("a", [99, 98, *times])}, rounds=40, warm_up=2)
    assert found["a"].median_ms == pytest.approx(1e3 * statistics.median(times))
    assert found["a"].p95_ms == pytest.approx(1e3 * statistics.quantiles(times, n=20, method="inclusive")[-1])


def test_runs_go_by_turns_and_each_begins_once(clock: Clock) -> None:
    runs = {name: clock.run(name, [float(i)] * 3) for i, name in enumerate("abc")}
    found = measure_latency(runs, rounds=2, warm_up=1)
    assert "".join(clock.order) == "abcbcacab"
    assert [found[name].median_ms for name in "abc"] == [0, 1000, 2000]


def test_a_gpu_is_waited_for_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seen = Clock(), []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: seen.append(len(clock.order)))
    device = torch.device("cuda")
    measure_latency({"a": clock.run("a", [1.0, 1.0])}, rounds=2, warm_up=0, device=device)
    assert seen == [0, 1, 1, 2]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Runs each thing once in place of timing it, and keeps what it returned."""
    done: dict = {}

    def measure(runs: dict, **_: object) -> dict:
        done.update({name: run() for name, run in runs.items()})
        return {name: SimpleNamespace(median_ms=float(list(done).index(name))) for name in runs}

    monkeypatch.setattr(latency, "measure_latency", measure)
    return done


def test_the_two_kinds_of_path_and_another_model(net: SwitchableModel, runs: dict) -> None:
    found = measure_switching(net, partial(rsconvert.create_model, "test_efficientnet", num_classes=5))
    assert found == Switching(32, 0.0, untrained=56, untrained_ms=1.0, create_ms=2.0, load_ms=3.0)
    assert runs["trained_ms"] is net.at(32)
    weight, halves = runs["untrained_ms"].bn1.weight, [net.at(r).bn1.weight for r in (64, 48)]
    assert ((halves[0] + halves[1]) / 2).allclose(weight)
    assert isinstance(runs["create_ms"], type(net.at(64)))
    assert not runs["load_ms"].missing_keys


def test_without_a_builder_that_part_is_left_out(net: SwitchableModel, runs: dict) -> None:
    assert measure_switching(net) == Switching(32, 0.0, untrained=56, untrained_ms=1.0)


def test_one_resolution_is_halved(tiny: type[nn.Module], runs: dict) -> None:
    assert measure_switching(rsconvert.make_switchable(tiny(), (32,))).untrained == 16
    assert measure_switching(rsconvert.make_switchable(tiny(), (33, 32))).untrained == 16


def test_a_size_that_can_not_be_built_is_left_out(net: SwitchableModel, runs: dict, monkeypatch) -> None:
    def refuse(resolution: int) -> nn.Module:
        raise ResolutionError(str(resolution))

    net.build = refuse
    assert measure_switching(net) == Switching(32, 0.0)


def test_the_line_has_units() -> None:
    found = Switching(96, 0.0012, untrained=208, untrained_ms=4.25, create_ms=300.0, load_ms=20.0)
    assert str(found) == (
        "switching: net.at(96) 1.2 µs; net.at(208), interpolated, 4.25 ms; another model: created in 300 ms, its file "
        "loaded in 20 ms"
    )
    assert str(Switching(96, 0.0012)) == "switching: net.at(96) 1.2 µs"
