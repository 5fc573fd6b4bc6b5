"""Examples: what a model takes, told by its layers and by its signature."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from rsconvert.models import example_arguments, example_input, input_channels
from rsconvert.models.example import resizes_inside


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Conv2d(1, 4, 3), (1, 1, 8, 8)),
        (nn.Conv2d(12, 4, 3), (1, 12, 8, 8)),
        (nn.ModuleList([nn.Conv2d(4, 5, 1), nn.Conv2d(3, 4, 3)]), (1, 3, 8, 8)),
        (nn.Sequential(nn.Conv2d(1, 3, 1), nn.Conv2d(3, 4, 3)), (1, 1, 8, 8)),
        (nn.Conv3d(3, 4, 3), (1, 3, 16, 8, 8)),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3)), (1, 3, 8, 8)),
        (nn.Linear(3, 4), (1, 3, 8, 8)),
    ],
)
def test_the_example_fits_the_stem(model: nn.Module, shape: tuple[int, ...]) -> None:
    x = example_input(model.double(), 8)
    assert x.shape == shape
    assert x.dtype == torch.float64
    assert torch.equal(x, example_input(model, 8))
    assert input_channels(model) == shape[1]


def test_tresnet_folds_its_image_first() -> None:
    with torch.device("meta"):
        model = timm.create_model("tresnet_m")
    assert example_input(model, 32).shape == (1, 3, 32, 32)


def test_a_batch_is_as_large_as_wanted_and_of_different_images() -> None:
    (x,) = example_arguments(nn.Conv2d(3, 4, 3), 8, batch=2)
    assert x.shape == (2, 3, 8, 8)
    assert not torch.equal(x[0], x[1])


def test_a_detector_takes_a_list_of_images() -> None:
    model = torchvision.models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None)
    assert resizes_inside(model)
    (images,) = example_arguments(model, 32, batch=2)
    assert [image.shape for image in images] == [(3, 32, 32)] * 2


def test_every_argument_that_forward_demands_is_an_image() -> None:
    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, first, second, steps: int = 3, *, scale: float = 1.0):
            return first - second

    first, second = example_arguments(Flow(), 8)
    assert first.shape == second.shape == (1, 3, 8, 8)
    assert not torch.equal(first, second)
