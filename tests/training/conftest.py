"""What the tests of training share: drawn photos of three colours."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from rsconvert.checkpoint import read_metadata
from rsconvert.surgery import SwitchableModel

CLASSES = ("blue", "green", "red")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def held() -> Callable[[Path], tuple[dict[str, Any], dict[str, bytes]]]:
    """What a file holds: metadata and bytes. The order of safetensors' header is of no account."""

    def read(file: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
        return dict(read_metadata(file).fields), {
            name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()
        }

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
