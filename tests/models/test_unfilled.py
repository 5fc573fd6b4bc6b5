"""Unfilled builds: no draw, no fill, but every buffer."""

import timm
import torch
from torch import nn

from rsconvert.models.unfilled import unfilled


def test_parameters_are_not_drawn_and_buffers_are_computed() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    with unfilled():
        model = timm.create_model("levit_128s")
        layer = nn.Linear(50, 50)
    assert torch.equal(torch.rand(1), wanted)
    filled = timm.create_model("levit_128s")
    assert model.state_dict().keys() == filled.state_dict().keys()
    for (name, buffer), (_, other) in zip(model.named_buffers(), filled.named_buffers(), strict=True):
        assert torch.equal(buffer, other), name
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight.shape == (50, 50)


def test_tensors_that_are_no_parameters_are_filled() -> None:
    with unfilled():
        assert torch.equal(torch.empty(3).fill_(2.0), torch.full((3,), 2.0))
        assert nn.init.ones_(torch.empty(2)).tolist() == [1.0, 1.0]


def test_outside_everything_is_drawn_again() -> None:
    with unfilled():
        pass
    assert nn.init.ones_(nn.Parameter(torch.empty(2))).tolist() == [1.0, 1.0]
