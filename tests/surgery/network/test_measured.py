"""Measured: stays with a network that is the same, falls with whatever changes a value of it, by whatever way."""

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from rsconvert.data import Preprocessing
from rsconvert.surgery import Measured, SwitchableModel, make_switchable

RECORD = Measured(cascade={"stages": [32, 64], "thresholds": [0.5]})


@pytest.fixture
def net(tiny: type[nn.Module]) -> SwitchableModel:
    torch.manual_seed(0)
    net = make_switchable(tiny(), (64, 32))
    net.measured = RECORD
    return net


def train(net: SwitchableModel) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), 0.01)
    sum(z.square().sum() for z in net.train()(views=[torch.randn(2, 3, r, r) for r in (64, 32)])).backward()
    optimizer.step()


def running(net: SwitchableModel) -> None:
    with torch.no_grad():
        net.at(32).train()(torch.randn(2, 3, 32, 32))


def state(net: SwitchableModel, **options: bool) -> None:
    net.load_state_dict({k: v + 1 if v.is_floating_point() else v for k, v in net.state_dict().items()}, **options)


def permuted(net: SwitchableModel) -> None:
    state = net.state_dict()
    state["fc.weight"], state["bn1.at.32.weight"] = state["fc.weight"].flip(0), torch.arange(8.0)
    net.load_state_dict(state)
    net.measured = RECORD
    net.load_state_dict(state | {"bn1.at.32.weight": torch.arange(8.0).flip(0)})


CHANGES: dict[str, Callable[[SwitchableModel], object]] = {
    "another order": permuted,
    "another order of the classes": lambda net: net.fc.weight.data.copy_(net.fc.weight.data.flip(0)),
    "a step": train,
    "statistics": running,
    "a value past autograd": lambda net: net.at(32).fc.bias.data.add_(1),
    "other memory": lambda net: setattr(net.at(64).fc.weight, "data", net.at(64).fc.weight + 1),
    "one set": lambda net: net.at(32).bn1.running_mean.add_(0.1),
    "sets exchanged": lambda net: [net.at(a).bn1.running_var.fill_(a) for a in (32, 64)],
    "load_state_dict": state,
    "load_state_dict, assigned": lambda net: state(net, assign=True),
    "another precision": lambda net: net.half(),
    "the images": lambda net: setattr(
        net, "source", dataclasses.replace(net.source, preprocessing=Preprocessing(mean=(0.1, 0.1, 0.1)))
    ),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_drops_it_for_good(net: SwitchableModel, change: str) -> None:
    before = copy.deepcopy(net.state_dict())
    CHANGES[change](net)
    assert net.measured == Measured()
    net.float().load_state_dict(before)
    assert net.measured == Measured()


SAME: dict[str, Callable[[SwitchableModel], object]] = {
    "deepcopy": copy.deepcopy,
    "the same device": lambda net: net.to("cpu"),
    "other strides": lambda net: net.to(memory_format=torch.channels_last),
    "modes": lambda net: net.eval().train(),
    "a forward": lambda net: net.eval()(torch.randn(1, 3, 48, 48)),
    "its own state": lambda net: net.load_state_dict(net.state_dict()),
    "the record of a training": lambda net: setattr(
        net, "source", dataclasses.replace(net.source, training={"epochs": 1})
    ),
}


@pytest.mark.parametrize("same", list(SAME))
def test_what_changes_no_value_keeps_it(net: SwitchableModel, same: str) -> None:
    found = SAME[same](net)
    assert net.measured is RECORD
    if isinstance(found, SwitchableModel):
        assert found.measured == RECORD


def test_a_copy_has_a_record_of_its_own(net: SwitchableModel) -> None:
    other = copy.deepcopy(net)
    train(other)
    assert (net.measured, other.measured) == (RECORD, Measured())


def test_a_new_record_holds_for_the_values_of_its_time(net: SwitchableModel) -> None:
    train(net)
    net.measured = RECORD
    assert net.measured is RECORD
    train(net)
    assert net.measured == Measured()


def test_a_network_without_values_has_none(net: SwitchableModel) -> None:
    assert net.to("meta").measured == Measured()


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Measured().costs = {}
