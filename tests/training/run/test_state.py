"""State: what is collected comes back, in the layout that the optimizer reads; which run it fits."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from rsconvert.data import Samples
from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.evaluation import Processes
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.run.state import check_same_run, collect_state, data_identity, restore_state
from rsconvert.training.step.stepper import Stepper

MakeNet = Callable[..., SwitchableModel]
ALONE = Processes(0, 1, torch.device("cpu"))


def stepper_of(net: SwitchableModel, **settings: Any) -> Stepper:
    return Stepper(net, FinetuneConfig(lr=0.1, **settings), 10, torch.float32, ALONE)


def stepped(stepper: Stepper, steps: int) -> SwitchableModel:
    for _ in range(steps):
        views = [torch.randn(4, 3, r, r) for r in stepper.net.resolutions]
        stepper.add(views, torch.tensor([0, 2, 1, 2]), last=True)
        stepper.step(7)
    return stepper.net


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw"])
def test_what_is_collected_comes_back(make_net: MakeNet, name: Any) -> None:
    def make() -> Stepper:
        net = make_net(dropout=0.5).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return stepper_of(net, optimizer=name)

    stepper, other = make(), make()
    with torch.random.fork_rng(devices=[]):
        stepped(stepper, 2)
        state = collect_state(stepper)
        wanted = copy.deepcopy(stepped(stepper, 2).state_dict())
        torch.manual_seed(77)
        restore_state({key: value.contiguous() for key, value in state.items()}, other)
        found = stepped(other, 2).state_dict()
    assert not stepper.net.get_parameter("conv1.weight").is_contiguous()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_a_state_is_a_copy(net: SwitchableModel) -> None:
    stepper = stepper_of(net, ema_decay=0.5)
    stepped(stepper, 1)
    state = collect_state(stepper)
    before = {key: value.clone() for key, value in state.items()}
    stepped(stepper, 1)
    assert all(torch.equal(state[key], value) for key, value in before.items())
    assert {key.split(".")[0] for key in state} == {"net", "average", "optimizer", "random"}


def test_a_rank_takes_its_own_statistics_and_generator(net: SwitchableModel) -> None:
    stepper = stepper_of(net)
    with torch.random.fork_rng(devices=[]):
        state = collect_state(stepper)
        torch.manual_seed(5)
        state |= {"random.1.cpu": torch.get_rng_state(), "buffers.1.net.bn1.running_mean": torch.full((6,), 3.0)}
        stepper.processes = Processes(1, 2, torch.device("cpu"))
        restore_state(state, stepper)
        assert torch.equal(torch.get_rng_state(), state["random.1.cpu"])
        assert torch.equal(net.get_buffer("bn1.running_mean"), torch.full((6,), 3.0))
        assert torch.equal(net.get_buffer("bn2.running_mean"), torch.zeros(6))
        stepper.processes = Processes(2, 3, torch.device("cpu"))
        with pytest.raises(CheckpointError, match="a run with fewer processes"):
            restore_state(state, stepper)


def test_the_state_of_another_network_is_refused(make_net: MakeNet) -> None:
    state, other = collect_state(stepper_of(make_net())), stepper_of(make_net((32, 24)))
    with torch.random.fork_rng(devices=[]), pytest.raises(CheckpointError, match="the state does not fit"):
        restore_state(state, other)


SAVED = json.loads(json.dumps({**asdict(FinetuneConfig()), "processes": 1, "images": 30}))


@pytest.mark.parametrize("changes", [{}, {"workers": 7}, {"save_minutes": 1.0}, {"keep_states": 5}, {"log_dir": "x"}])
def test_what_changes_no_number_is_free(changes: dict[str, Any]) -> None:
    check_same_run(SAVED, FinetuneConfig(**changes), {"processes": 1, "images": 30}, force=False)


def test_differences_are_told_and_can_be_forced() -> None:
    config, facts = FinetuneConfig(epochs=11), {"processes": 1, "images": 31}
    with pytest.raises(ConfigError, match=r"epochs was 10 and is 11, images was 30 and is 31; .*--force"):
        check_same_run(SAVED, config, facts, force=False)
    check_same_run(SAVED, config, facts, force=True)
    with pytest.raises(ConfigError, match="processes was 1 and is 2; its state fits the same processes alone"):
        check_same_run(SAVED, config, {"processes": 2, "images": 30}, force=True)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigError, match=r"class_weights was None and is \(1\.0, .{50,60}…;"):
        check_same_run(SAVED, FinetuneConfig(class_weights=(1.0,) * 99), {"processes": 1, "images": 30}, force=False)


def test_the_images_and_how_they_are_seen_are_part_of_it(make_net: Callable[..., SwitchableModel]) -> None:
    def identity(
        net: SwitchableModel, count: int = 3, classes: tuple[str, ...] = ("a", "b"), outputs: Any = None
    ) -> Any:
        return data_identity(net, (Samples([(b"", 0)] * count, "train", classes), Samples([], "val", classes)), outputs)

    net, other = make_net(), make_net()
    first = identity(net)
    assert first["data"].startswith("3 train and 0 val images, 2 classes (")
    assert identity(make_net()) == first
    other.source = replace(other.source, preprocessing=replace(other.source.preprocessing, mean=(0.5, 0.5, 0.5)))
    different = [identity(net, 4), identity(net, 3, ("b", "a")), identity(net, 3, ("a", "b"), (1, 0)), identity(other)]
    assert all(found != first for found in different)


@pytest.mark.parametrize(("name", "remedy"), [("data", "images that"), ("starting_network", "checkpoint that")])
def test_the_remedy_fits_what_differs(name: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} was old and is new; .* Give the {remedy} the run started"):
        check_same_run(
            {**SAVED, name: "old"}, FinetuneConfig(), {"processes": 1, "images": 30, name: "new"}, force=False
        )
