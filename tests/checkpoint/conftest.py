"""Networks whose sets differ from each other, and a disk that is full."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rsconvert
from rsconvert.surgery import SwitchableModel

RESOLUTIONS = (64, 48, 32)


class Tied(nn.Module):
    """One kernel in two convolutions, one BatchNorm under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2)
        self.first = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.second.weight = self.first.weight
        self.bn = nn.BatchNorm2d(4)
        self.again = self.bn
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.first(self.stem(x))).relu()
        out: Tensor = self.head(self.again(self.second(x)).mean((2, 3)))
        return out


def scramble(net: nn.Module) -> None:
    """Give every floating tensor new values, so that no two sets are equal."""
    torch.manual_seed(0)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1 + 0.1 * torch.rand_like(tensor)).add_(0.05 * torch.rand_like(tensor))


@pytest.fixture(scope="session")
def made() -> SwitchableModel:
    torch.manual_seed(0)
    net = rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=5), RESOLUTIONS).eval()
    scramble(net)
    return net


@pytest.fixture
def net(made: SwitchableModel) -> SwitchableModel:
    """A fresh copy of timm's test_efficientnet for 5 classes."""
    return copy.deepcopy(made)


@pytest.fixture
def tied() -> Tied:
    torch.manual_seed(0)
    return Tied()


@pytest.fixture
def tied_net(tied: Tied) -> SwitchableModel:
    net = rsconvert.make_switchable(tied, RESOLUTIONS).eval()
    scramble(net)
    return net


@pytest.fixture
def saved(made: SwitchableModel, tmp_path: Path) -> Path:
    rsconvert.save(made, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"
