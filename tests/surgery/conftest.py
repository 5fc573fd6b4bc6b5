"""Small networks of every BatchNorm kind, and values that tell the sets apart."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rsconvert.surgery import SwitchableModel
from rsconvert.surgery.scramble import scrambled
from rsconvert.surgery.scramble import write as write_values

RESOLUTIONS = (64, 48, 32)


class Tiny(nn.Module):
    """Two convolutions with a BatchNorm each, a dropout and a classifier."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.bn1 = norm(8)
        self.conv2 = nn.Conv2d(8, 6, 3, padding=1)
        self.bn2 = norm(6)
        self.drop = nn.Dropout(0.0)
        self.fc = nn.Linear(6, classes)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        return self.bn2(self.conv2(x)).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.forward_features(x).mean((2, 3))))


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def tiny() -> type[Tiny]:
    return Tiny


@pytest.fixture
def write() -> Callable[[nn.Module, int], nn.Module]:
    """Write the values that belong to one resolution into the BatchNorms of a plain model or a live path."""

    def writer(model: nn.Module, resolution: int) -> nn.Module:
        write_values(model, scrambled(model, resolution))
        return model

    return writer


@pytest.fixture
def write_all(write: Callable[[nn.Module, int], nn.Module]) -> Callable[[SwitchableModel], SwitchableModel]:
    """Give each set of a network, made from a fresh model, values of its own."""

    def writer(net: SwitchableModel) -> SwitchableModel:
        for resolution in net.resolutions:
            write(net.at(resolution), resolution)
        return net

    return writer


@pytest.fixture
def image() -> Callable[..., Tensor]:
    def make(resolution: int, width: int | None = None, batch: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(resolution)
        return torch.randn(batch, 3, resolution, width or resolution, generator=generator)

    return make
