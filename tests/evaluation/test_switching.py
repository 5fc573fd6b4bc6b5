"""Switching: what is timed, and what is left out where it can't be done."""

from functools import partial
from types import SimpleNamespace

import pytest
from torch import nn

import rsconvert
from rsconvert.errors import ResolutionError
from rsconvert.evaluation import switching
from rsconvert.evaluation.switching import Switching, measure_switching
from rsconvert.surgery import SwitchableModel


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Runs each thing once in place of timing it, and keeps what it returned."""
    done: dict = {}

    def measure(runs: dict, **_: object) -> dict:
        done.update({name: run() for name, run in runs.items()})
        return {name: SimpleNamespace(median_ms=float(list(done).index(name))) for name in runs}

    monkeypatch.setattr(switching, "measure_latency", measure)
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
