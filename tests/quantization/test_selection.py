"""Which convolutions stay float, and why."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from rsconvert.errors import ConfigError, UnsupportedModelError
from rsconvert.quantization.selection import choose_layers, parse_bits
from tests.conftest import Tiny


class Odd(nn.Module):
    """Convolutions of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Conv2d(4, 4, 3)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.two.weight = self.one.weight
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 5, 2))
        self.fc = nn.Conv2d(5, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.depthwise(self.two(self.one(self.stem(x)))).relu())
        return self.fc(x).mean((2, 3))


def test_the_first_convolution_and_the_classifier_stay_float() -> None:
    choice = choose_layers(Odd(), 32, (2, 32))
    assert choice.reasons == {
        "unused": "does not run in eval mode",
        "stem": "is the first",
        "one": "shares its weight",
        "two": "shares its weight",
        "fc": "is the classifier",
    }
    assert choice.layers == {"depthwise": (2, 32), "block.0": (2, 32), "block.1": (2, 32)}


def test_named_ones_take_the_place_of_the_rule() -> None:
    choice = choose_layers(Odd(), 32, (1, 32), keep_float=["block"])
    assert {name for name, why in choice.reasons.items() if why == "is named to stay float"} == {"block.0", "block.1"}
    assert {"stem", "fc", "depthwise"} <= choice.layers.keys()


def test_activations_that_can_be_negative_stay_float() -> None:
    choice = choose_layers(Odd(), 32, (1, 2))
    assert choice.layers["block.0"] == (1, 2)  # behind a ReLU
    assert choice.layers["block.1"] == (1, 32)
    assert choice.float_inputs["block.1"] == "its input can be negative"


def test_a_filter_that_few_bits_do_not_shrink_stays_float() -> None:
    # 9 weights of 7 bits and 7 numbers of 32 take 287 bits, of 9 numbers 288; with 8 bits 328.
    assert "depthwise" in choose_layers(Odd(), 32, (7, 32)).layers
    assert "more bytes" in choose_layers(Odd(), 32, (8, 32)).reasons["depthwise"]


def test_private_modules_and_other_classes_stay_float() -> None:
    class Own(nn.Conv2d):
        pass

    model = Odd()
    model.block[1] = Own(4, 5, 2)
    reasons = choose_layers(model, 32, (2, 32), private=["depthwise"], keep_float=["stem"]).reasons
    assert reasons["depthwise"] == "has one weight per resolution"
    assert reasons["block.1"] == "is a Own, which uses its weight in its own way"


def test_the_hooks_of_the_run_are_gone() -> None:
    model = Tiny().train()
    choose_layers(model, 32, (2, 32))
    assert model.training
    assert all(not module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    "bits", ["2", "0/32", "2/0", "9/32", "2/9", "2/16", "32/32", "a/b", "", "2/32/1", "-1/32", "２/32", 2]
)
def test_bits_that_make_no_sense_are_refused(bits: str | int) -> None:
    with pytest.raises(ConfigError, match=r"^bits is .*; W/A with 1 to 8 bits"):
        parse_bits(bits)  # type: ignore[arg-type]


def test_bits_are_read() -> None:
    assert [parse_bits(text) for text in ("2/32", "2/2", "8/8", "1/4")] == [(2, 32), (2, 2), (8, 8), (1, 4)]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^keep_float names 'conv9', which is no convolution.*unused, stem, one"):
        choose_layers(Odd(), 32, (2, 32), keep_float=["conv9"])


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), "Sequential has no convolution to quantize. One"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), "no convolution to quantize; 0 is the first"),
    ],
)
def test_a_model_without_a_convolution_left_is_refused(model: nn.Module, match: str) -> None:
    with pytest.raises(UnsupportedModelError, match=match):
        choose_layers(model, 4, (2, 32))


def test_a_model_that_does_not_run_is_refused() -> None:
    class Broken(Tiny):
        def forward(self, x: Tensor, *_: Any) -> Tensor:
            raise TypeError("two images are needed")

    with pytest.raises(UnsupportedModelError, match=r"does not run on an example at 32 \(TypeError: two images"):
        choose_layers(Broken(), 32, (2, 32))


def test_a_weight_that_is_not_finite_stays() -> None:
    model = Tiny()
    with torch.no_grad():
        model.conv2.weight[0, 0, 0, 0] = torch.inf
    with pytest.raises(UnsupportedModelError, match="conv2 holds a weight that is not finite"):
        choose_layers(model, 32, (2, 32))


def test_all_of_a_pre_activation_resnet_but_its_first_gets_few_bits() -> None:
    model = timm.create_model("resnetv2_18", num_classes=3, channels=(8, 8, 16, 16), stem_chs=8)
    choice = choose_layers(model, 32, (2, 2))
    assert set(choice.layers.values()) == {(2, 2)}
    assert len(choice.layers) == 19
    assert choice.reasons == {"stem.conv": "is the first", "head.fc": "is the classifier"}
