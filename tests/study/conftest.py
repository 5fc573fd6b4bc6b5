"""Small networks whose sets all differ, and images for them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rsconvert.data import Samples
from rsconvert.surgery import SwitchableModel, make_switchable

TARGETS = tuple(i % 5 for i in range(60))


class Photos:
    """Patches of colour with their targets; noise alone would look the same to a network that takes means."""

    def __init__(self) -> None:
        patches = np.random.default_rng(0).integers(0, 256, (len(TARGETS), 4, 4, 3), dtype=np.uint8)
        self.pixels = patches.repeat(10, axis=1).repeat(10, axis=2)

    def __len__(self) -> int:
        return len(TARGETS)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return Image.fromarray(self.pixels[index]), TARGETS[index]


@pytest.fixture
def samples() -> Samples:
    return Samples(Photos(), "photos", tuple("abcde"))


@pytest.fixture
def network(tiny: type) -> Callable[..., SwitchableModel]:
    """Make a network for given resolutions, scrambled by a seed."""

    def make(*resolutions: int, seed: int = 1) -> SwitchableModel:
        net = make_switchable(tiny(), resolutions)
        generator = torch.Generator().manual_seed(seed)
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(values.abs() + 0.2 if "var" in name else values)
        return net

    return make
