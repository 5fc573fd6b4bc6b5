"""What the tests of training share: drawn photos of three colours, and a network small enough for them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from rsconvert.checkpoint import read_metadata
from rsconvert.surgery import SwitchableModel, make_switchable

CLASSES = ("blue", "green", "red")


class Tiny(nn.Module):
    """Two convolutions with BatchNorm, dropout, a classifier."""

    def __init__(self, classes: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, bias=True), nn.BatchNorm2d(6)
        self.dropout, self.fc = nn.Dropout(dropout), nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        return self.fc(self.dropout(self.bn2(self.conv2(x)).relu().mean((2, 3))))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_net() -> Callable[..., SwitchableModel]:
    def make(
        resolutions: tuple[int, ...] = (32, 24, 16), *, private: bool = True, classes: int = 3, dropout: float = 0.0
    ) -> SwitchableModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Tiny(classes, dropout)
        return make_switchable(model, resolutions, private=private)

    return make


@pytest.fixture
def held() -> Callable[[Path], tuple[dict[str, Any], dict[str, bytes]]]:
    """What a file holds: metadata and bytes. The order of safetensors' header is of no account."""

    def read(file: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
        return read_metadata(file), {name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()}

    return read


@pytest.fixture
def net(make_net: Callable[..., SwitchableModel]) -> SwitchableModel:
    return make_net()


def draw(base: Path, split: str, per_class: int) -> None:
    rng = np.random.default_rng(len(split))
    for target, name in enumerate(CLASSES):
        (base / split / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = rng.integers(0, 150, (40, 40, 3), dtype=np.uint8)
            pixels[..., 2 - target] += 100
            Image.fromarray(pixels).save(base / split / name / f"{index}.png")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of 24 train and 12 val images of 40 × 40."""
    base = tmp_path_factory.mktemp("photos")
    draw(base, "train", 8)
    draw(base, "val", 4)
    return str(base)
