"""The best path within a budget: out of a table whose answers are known, and counted."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from rsconvert import for_budget
from rsconvert.errors import ConfigError
from rsconvert.evaluation import Benchmark, multiply_adds, store_costs
from rsconvert.models import Task
from rsconvert.runtime import budget, resolution_for_budget
from rsconvert.surgery import Measured, SwitchableModel, make_switchable

Table = Callable[..., Benchmark]


def test_the_highest_top1_within_the_latency(net: SwitchableModel, table: Table) -> None:
    store_costs(net, table((64, 8.0, 70.0), (56, 6.0, 72.0), (48, 5.0, 71.0), (32, 2.0, 60.0)))
    for latency, expected in ((100, 56), (6.0, 56), (5.9, 48), (4.99, 32), (2.0, 32)):
        assert resolution_for_budget(net, latency_ms=latency) == expected


@pytest.mark.parametrize(("latency", "side"), [(6, 56), (3, 32)])
def test_the_path_is_in_eval_mode_and_knows_its_resolution(
    net: SwitchableModel, table: Table, latency: float, side: int
) -> None:
    store_costs(net, table((56, 6.0, 72.0), (32, 2.0, 60.0)))
    modes = [module.training for module in net.train().modules()]
    path, x = for_budget(net, latency_ms=latency), torch.rand(1, 3, side, side)
    assert type(path) is type(net.at(32))
    assert path.resolution == side
    assert path.state_dict().keys() == net.at(32).state_dict().keys()
    assert not any(module.training for module in path.modules())
    assert [module.training for module in net.modules()] == modes
    assert "resolution" not in vars(net.at(32))
    assert torch.equal(path(x), net.eval().at(side)(x))
    with torch.no_grad():
        next(net.parameters()).mul_(2)  # a shared one
    assert torch.equal(path(x), net.at(side)(x))
    net.train()
    assert not path.training


def test_a_source_that_has_a_resolution_keeps_it(tiny: type[torch.nn.Module]) -> None:
    model = tiny()
    model.resolution = "high"
    net = make_switchable(model, (64, 32))
    assert for_budget(net, multiply_adds=multiply_adds(net.at(32), 32)).resolution == "high"


def test_of_equals_the_cheaper(net: SwitchableModel, table: Table) -> None:
    store_costs(net, table((64, 8.0, 70.0), (48, 5.0, 70.0)))
    assert resolution_for_budget(net, latency_ms=9) == 48


def test_without_top1_the_largest(net: SwitchableModel, table: Table) -> None:
    store_costs(net, table((48, 5.0, None), (64, 8.0, None), (32, 2.0, None)))
    assert [resolution_for_budget(net, latency_ms=ms) for ms in (2, 5, 80)] == [32, 48, 64]


def test_form_batch_size_and_precision_choose_the_rows(net: SwitchableModel, table: Table) -> None:
    slow, fast = table((64, 8.0, None), (32, 2.0, None)), table((64, 1.0, None), form="folded", batch_size=4)
    store_costs(net, Benchmark(**{**vars(slow), "costs": slow.costs + fast.costs}))
    assert resolution_for_budget(net, latency_ms=3) == 32
    assert resolution_for_budget(net, latency_ms=3, form="folded", batch_size=4) == 64
    with pytest.raises(ConfigError, match=r"of folded with batches of 1 .* of folded with batches of 4"):
        resolution_for_budget(net, latency_ms=3, form="folded")
    with pytest.raises(ConfigError, match="of plain with batches of 1 and amp bf16"):
        resolution_for_budget(net, latency_ms=3, amp=torch.bfloat16)


def test_another_machine_s_milliseconds_are_refused(net: SwitchableModel, table: Table) -> None:
    store_costs(net, table((64, 8.0, 70.0), machine="Card; Chip; 9 threads; torch 1"))
    with pytest.raises(ConfigError, match="another machine's milliseconds") as caught:
        resolution_for_budget(net, latency_ms=9)
    told = str(caught.value)
    assert "\n" not in told
    assert "'Card; Chip; 9 threads; torch 1'" in told
    assert f"{torch.get_num_threads()} threads here, 9 threads there" in told
    assert resolution_for_budget(net, multiply_adds=5000) == 64  # what is counted holds everywhere
    net.measured = Measured()
    with pytest.raises(ConfigError, match="holds no latencies yet; those of this machine, "):
        resolution_for_budget(net, latency_ms=9)


def test_multiply_adds_of_a_table_with_top1(net: SwitchableModel, table: Table) -> None:
    store_costs(net, table((64, 8.0, 70.0), (48, 5.0, 71.0), (32, 2.0, 60.0)))
    assert [resolution_for_budget(net, multiply_adds=m) for m in (1e9, 64**2, 48**2 - 1)] == [48, 48, 32]


def test_masks_are_chosen_by_their_miou(net: SwitchableModel, table: Table) -> None:
    task = Task(name="segmentation")
    rows = table((64, 8.0, 70.0), (48, 5.0, 60.0), (32, 2.0, 50.0))
    store_costs(net, rows.with_scores({64: 40.0, 48: 42.0, 32: 30.0}, task.metric))
    assert resolution_for_budget(net, latency_ms=9) == 64  # of a classifier, by top-1
    net.source = replace(net.source, task=task)
    store_costs(net, rows.with_scores({64: 40.0, 48: 42.0, 32: 30.0}, task.metric))
    assert [resolution_for_budget(net, latency_ms=ms) for ms in (9, 3)] == [48, 32]
    assert resolution_for_budget(net, multiply_adds=64**2) == 48


@pytest.mark.parametrize("stored", [False, True])
def test_multiply_adds_are_counted_without_top1(net: SwitchableModel, table: Table, stored: bool, monkeypatch) -> None:
    if stored:
        store_costs(net, table((64, 1.0, None)))
    monkeypatch.setattr(budget, "_STEP", 8)
    costs = {r: multiply_adds(net.at(r), r) for r in (32, 40, 48, 56, 64)}
    for r, cost in costs.items():
        assert resolution_for_budget(net, multiply_adds=cost) == r
        assert resolution_for_budget(net, multiply_adds=costs[64] * 10) == 64
        if r > 32:
            assert resolution_for_budget(net, multiply_adds=cost - 1) == r - 8
    with pytest.raises(
        ConfigError, match=f"multiply_adds is 5; the cheapest path, of 32 pixels, takes {costs[32] / 1e6:.4g} M"
    ):
        resolution_for_budget(net, multiply_adds=5)


def test_a_network_built_for_each_size_keeps_to_the_trained_ones(net: SwitchableModel, monkeypatch) -> None:
    monkeypatch.setattr(budget, "_STEP", 8)
    net.build = lambda resolution: net.skeleton()
    assert resolution_for_budget(net, multiply_adds=multiply_adds(net.at(64), 64) - 1) == 48


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "the budget is empty; exactly one"),
        ({"latency_ms": 1, "multiply_adds": 2}, "exactly one of latency_ms and multiply_adds"),
        ({"latency_ms": 0}, "latency_ms is 0; a number above 0"),
        ({"multiply_adds": float("nan")}, "multiply_adds is nan"),
        ({"latency_ms": 1.5}, "latency_ms is 1.5 ms; the cheapest path, of 32 pixels, takes 2 ms. Raise it"),
        ({"latency_ms": 9, "form": "fold"}, "form is 'fold'; .* Did you mean folded?"),
        ({"latency_ms": 9, "amp": torch.int8}, "amp is torch.int8"),
    ],
)
def test_mistakes_are_told(net: SwitchableModel, table: Table, arguments: dict, words: str) -> None:
    store_costs(net, table((64, 8.0, 70.0), (32, 2.0, 60.0)))
    with pytest.raises(ConfigError, match=words):
        resolution_for_budget(net, **arguments)
