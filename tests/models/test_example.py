"""Examples: what a model takes, read from the first layer that the input reaches and from its signature."""

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from rsconvert.models import (
    Stem,
    as_call,
    example_arguments,
    example_input,
    example_stem,
    receivers,
    resizes_inside,
    static_stem,
)


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
    assert example_stem(model, 224).channels == shape[1]


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


class Misleading(nn.Module):
    """Registers layers of one and three channels that the image never reaches; one of them runs first."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.depth, self.prior, self.conv = nn.Conv2d(1, 4, 1), nn.Conv2d(3, 1, 1), nn.Conv2d(channels, 4, 3)
        self.register_buffer("grid", torch.ones(1, 3, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.prior(self.grid).mean()


class Coordinates(Misleading):
    """Adds two channels of coordinates to a grey image."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([x, torch.zeros_like(x[:, :1]), torch.zeros_like(x[:, :1])], 1))


class Folded(Misleading):
    """Folds 2x2 pixels by its own means."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pixel_unshuffle(x, 2))


class Normalized(Misleading):
    """A BatchNorm on the image, ahead of all layers."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.bn(x))


class Frames(Misleading):
    """A 2d network that registers a 3d layer first."""

    def __init__(self) -> None:
        super().__init__(3)
        self._modules = {"cost": nn.Conv3d(1, 1, 1), **self._modules}


@pytest.mark.parametrize(
    ("model", "stem"),
    [
        (Misleading(), Stem(4)),
        (Misleading(3), Stem(3)),
        (Coordinates(3), Stem(1)),
        (Folded(12), Stem(3)),
        (Folded(4), Stem(1)),
        (Normalized(5), Stem(5)),
        (Normalized(1), Stem(1)),
        (Frames(), Stem(3)),
        (nn.Conv3d(2, 4, 3), Stem(2, (16,))),
        (nn.Sequential(nn.Conv2d(6, 4, 1, groups=2)), Stem(6)),
        (nn.Sequential(nn.Flatten(), nn.Linear(4 * 16 * 16, 3)), Stem(4)),
    ],
)
def test_the_channels_are_those_of_the_first_layer_that_the_image_reaches(model: nn.Module, stem: Stem) -> None:
    assert example_stem(model, 16) == stem
    assert example_input(model, 16).shape == (1, stem.channels, *stem.frames, 16, 16)


def test_no_statistic_and_no_generator_moves() -> None:
    model = nn.Sequential(nn.Dropout(0.5), Normalized(3)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    example_stem(model, 16)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_where_no_layer_can_be_watched_the_modules_decide() -> None:
    class Failing(Misleading):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError

    assert example_stem(Failing(), 16) == static_stem(Failing()) == Stem(1)
    assert example_stem(nn.ReLU(), 16) == Stem(3)


def test_a_model_without_data_can_be_watched() -> None:
    assert example_stem(Misleading().to("meta"), 16) == Stem(4)


class Named(nn.Module):
    def forward(self, ids=None, *, image, mask=None):
        return image


def test_arguments_by_keyword_alone_are_a_dictionary() -> None:
    args, kwargs = as_call(example_arguments(Named(), 8))
    assert (args, list(kwargs)) == ((), ["image"])
    assert as_call((1, 2)) == ((1, 2), {})
    assert [p.name for p in receivers(Named(), "mask")] == ["image", "mask"]
    assert [p.name for p in receivers(Named(), 0)] == ["image", "ids"]
    assert example_arguments(Named(), 8, image="image.left")["image"]["left"].shape == (1, 3, 8, 8)
