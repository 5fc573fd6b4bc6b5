"""State: what is collected comes back, in the layout of memory that the optimizer reads."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rsconvert.errors import CheckpointError
from rsconvert.evaluation import Processes
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.run.state import collect_state, restore_state
from rsconvert.training.step.optimizer import create_optimizer

MakeNet = Callable[..., SwitchableModel]
ALONE = Processes(0, 1, torch.device("cpu"))


def stepped(net: SwitchableModel, optimizer: torch.optim.Optimizer, steps: int) -> SwitchableModel:
    for _ in range(steps):
        views = [torch.randn(4, 3, r, r) for r in net.resolutions]
        optimizer.zero_grad()
        sum(z.square().mean() for z in net.train()(views=views)).backward()  # type: ignore[union-attr]
        optimizer.step()
    return net


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw"])
def test_what_is_collected_comes_back(make_net: MakeNet, name: Any) -> None:
    config = FinetuneConfig(optimizer=name, lr=0.1)
    net = make_net(dropout=0.5).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = create_optimizer(net, config)
    with torch.random.fork_rng(devices=[]):
        state = collect_state(stepped(net, optimizer, 2), None, optimizer, ALONE)
        wanted = copy.deepcopy(stepped(net, optimizer, 2).state_dict())
        again = make_net(dropout=0.5).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        other = create_optimizer(again, config)
        torch.manual_seed(77)
        restore_state({key: value.contiguous() for key, value in state.items()}, again, None, other, ALONE)
        found = stepped(again, other, 2).state_dict()
    assert not net.get_parameter("conv1.weight").is_contiguous()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_a_state_is_a_copy(net: SwitchableModel) -> None:
    optimizer = create_optimizer(net, FinetuneConfig(lr=0.1))
    state = collect_state(stepped(net, optimizer, 1), net, optimizer, ALONE)
    before = {key: value.clone() for key, value in state.items()}
    stepped(net, optimizer, 1)
    assert all(torch.equal(state[key], value) for key, value in before.items())
    assert {key.split(".")[0] for key in state} == {"net", "average", "optimizer", "random"}


def test_a_rank_takes_its_own_statistics_and_generator(make_net: MakeNet) -> None:
    net = make_net()
    optimizer = create_optimizer(net, FinetuneConfig(lr=0.1))
    with torch.random.fork_rng(devices=[]):
        state = collect_state(net, None, optimizer, ALONE)
        torch.manual_seed(5)
        state |= {"random.1.cpu": torch.get_rng_state(), "buffers.1.net.bn1.running_mean": torch.full((6,), 3.0)}
        second = Processes(1, 2, torch.device("cpu"))
        restore_state(state, net, None, optimizer, second)
        assert torch.equal(torch.get_rng_state(), state["random.1.cpu"])
        assert torch.equal(net.get_buffer("bn1.running_mean"), torch.full((6,), 3.0))
        assert torch.equal(net.get_buffer("bn2.running_mean"), torch.zeros(6))
        with pytest.raises(CheckpointError, match="a run with fewer processes"):
            restore_state(state, net, None, optimizer, Processes(2, 3, torch.device("cpu")))


def test_the_state_of_another_network_is_refused(make_net: MakeNet) -> None:
    net, other = make_net(), make_net((32, 24))
    optimizer = create_optimizer(net, FinetuneConfig(lr=0.1))
    with torch.random.fork_rng(devices=[]), pytest.raises(CheckpointError, match="the state does not fit"):
        restore_state(collect_state(net, None, optimizer, ALONE), other, None, optimizer, ALONE)
