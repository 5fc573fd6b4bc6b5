"""The checks pass on what the conversion makes, and see every kind of mistake: in eval mode, and in a training step."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rsconvert import SwitchableModel, create_model, make_switchable
from rsconvert.compatibility.exactness import check_training, exact_in_batches, scramble, training_arguments

RESOLUTIONS = (48, 32)


class Small(nn.Module):
    """A convolution, a BatchNorm, a random layer, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.bn(self.conv(x)).relu().mean((2, 3))))


def converted(model: nn.Module) -> tuple[nn.Module, SwitchableModel]:
    torch.manual_seed(0)
    return model, make_switchable(model, RESOLUTIONS)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_a_step_of_a_path_is_a_step_of_the_source(resolution: int) -> None:
    source, net = converted(Small())
    check = check_training(source, net, resolution)
    assert check.same, check.words
    assert net.at(resolution).bn.num_batches_tracked == 1
    other = next(r for r in RESOLUTIONS if r != resolution)
    assert net.at(other).bn.num_batches_tracked == 0


def test_detectors_get_targets() -> None:
    source = create_model("torchvision/fasterrcnn_mobilenet_v3_large_320_fpn", num_classes=2)
    (images, targets) = training_arguments(source, 64, 2)
    assert [image.shape for image in images] == [(3, 64, 64)] * 2
    assert targets[0]["masks"].shape == (1, 64, 64)
    assert targets[0]["boxes"].max() <= 64


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.register_forward_hook(lambda *args: args[2] + 1e-6), "output differs"),
        (
            lambda path: path.bn.register_forward_pre_hook(lambda bn, _: bn.running_mean.zero_().tolist() and None),
            "bn.running_mean",
        ),
        (lambda path: path.head.weight.register_hook(lambda gradient: gradient * 2), "gradient of head.weight"),
        (lambda path: path.register_forward_pre_hook(_fail), "the path alone fails: ValueError: broken"),
    ],
)
def test_a_path_that_differs_is_told(spoil: Callable[[nn.Module], object], words: str) -> None:
    source, net = converted(Small())
    spoil(net.at(32))
    check = check_training(source, net, 32)
    assert check.same is False
    assert words in check.words


def test_a_set_that_moves_with_another_is_told() -> None:
    source, net = converted(Small())
    stray = net.at(48).bn
    net.at(32).register_forward_pre_hook(lambda *_: _forget(stray, None))
    check = check_training(source, net, 32)
    assert (check.same, check.words) == (False, "bn.running_mean of another set has moved")


def test_a_source_that_cannot_train_is_no_mistake_of_the_conversion() -> None:
    source, net = converted(Small())
    source.register_forward_pre_hook(_fail)
    check = check_training(source, net, 32)
    assert (check.same, check.words) == (None, "ValueError: broken")


def test_numbers_that_are_all_nan_prove_nothing() -> None:
    source, net = converted(Small())
    with torch.no_grad():
        source.head.bias.fill_(float("nan"))
        net.head.bias.fill_(float("nan"))
    assert check_training(source, net, 32).same is None


def _forget(bn: nn.Module, _: object) -> None:
    bn.running_mean.zero_()


def _fail(*_: object) -> None:
    raise ValueError("broken\nat line 2")


def test_each_set_gets_values_of_its_own() -> None:
    model = create_model("test_efficientnet")
    net = make_switchable(model, (64, 48, 32))
    source = copy.deepcopy(model)
    scramble(source, net, 48)
    values = {r: dict(net.at(r).named_parameters())["bn1.weight"] for r in net.resolutions}
    assert torch.equal(source.bn1.weight, values[48])
    assert not torch.equal(values[64], values[48])
    assert not torch.equal(values[64], values[32])


def test_a_swapped_set_is_not_exact() -> None:
    model = create_model("test_efficientnet")
    net = make_switchable(model, (64, 48, 32))
    assert exact_in_batches(net, lambda _: copy.deepcopy(model)) == {64: True, 48: True, 32: True}
    net.at(32).bn1, net.at(48).bn1 = net.at(48).bn1, net.at(32).bn1
    assert exact_in_batches(net, lambda _: copy.deepcopy(model)) == {64: True, 48: False, 32: False}


def test_a_layer_beyond_the_sets_is_not_exact() -> None:
    model = create_model("test_efficientnet")
    net = make_switchable(model, (64, 32))
    net.at(32).bn1 = nn.Identity()
    assert exact_in_batches(net, lambda _: copy.deepcopy(model)) == {64: True, 32: False}
