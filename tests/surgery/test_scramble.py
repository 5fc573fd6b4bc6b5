"""Scrambled values: different for each set, usable, the same at every call."""

import pytest
import timm
import torch
from torch import nn

from rsconvert.surgery.scramble import fill_zeros, scrambled, tensors, write


@pytest.fixture(params=["tiny", "resnet10t"])
def model(request, tiny) -> nn.Module:
    return tiny() if request.param == "tiny" else timm.create_model(request.param, num_classes=4)


def test_they_differ_by_resolution_and_stay_usable(model) -> None:
    one, other = scrambled(model, 64), scrambled(model, 48)
    assert one.keys() == other.keys()
    assert {name.rpartition(".")[2] for name in one} == {"weight", "bias", "running_mean", "running_var"}
    for name, value in one.items():
        assert (value != other[name]).any()
        assert value.isfinite().all()
        assert torch.equal(value, scrambled(model, 64)[name])
        assert not name.endswith("running_var") or (value > 0).all()


def test_nothing_is_written_before_it_is_asked_for(tiny) -> None:
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    values = scrambled(model, 64)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    write(model, values)
    assert all(torch.equal(tensors(model)[name], value) for name, value in values.items())
    assert torch.equal(model.conv1.weight, before["conv1.weight"])


def test_a_lone_batchnorm_has_names_without_a_prefix() -> None:
    assert set(scrambled(nn.BatchNorm2d(3), 64)) == {"weight", "bias", "running_mean", "running_var"}


def test_tensors_of_functions_are_scrambled_by_their_part() -> None:
    model = nn.Module()
    model.register_buffer("spread", torch.ones(4))
    values = scrambled(model, 64, {"spread": "running_var"})
    assert set(values) == {"spread"}
    assert (values["spread"] > 0).all()
    assert (values["spread"] != 1).all()


def test_parameters_that_are_zero_throughout_are_filled(tiny) -> None:
    model = tiny()
    nn.init.zeros_(model.fc.weight)
    filled = fill_zeros(model)
    assert {"fc.weight", "bn1.bias", "bn2.bias"} == set(filled)
    assert filled["fc.weight"].any()
