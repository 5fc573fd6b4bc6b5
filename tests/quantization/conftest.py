"""A small switchable network, and plain convolutions."""

import copy

import pytest
import torch
from torch import nn

from rsconvert.surgery import SwitchableModel, make_switchable
from tests.conftest import Tiny

RESOLUTIONS = (32, 24, 16)


@pytest.fixture(scope="session")
def made() -> SwitchableModel:
    torch.manual_seed(0)
    net = make_switchable(Tiny(), RESOLUTIONS).eval()
    for _, layer in net.switchable_bns():  # no two sets are equal
        for bn in layer.sets:
            nn.init.uniform_(bn.weight, 0.5, 1.5)
            nn.init.uniform_(bn.running_mean, -0.2, 0.2)
    return net


@pytest.fixture
def net(made: SwitchableModel) -> SwitchableModel:
    """``Tiny`` at three resolutions, with sets that differ."""
    return copy.deepcopy(made)
