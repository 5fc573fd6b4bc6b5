"""A BatchNorm has a layer that can take it over, or a reason why not."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, Conv2dSame, StdConv2d
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from rsconvert.surgery.pairing import Pair, find_pairs

KEPT: dict[str, tuple[Callable[[], list[nn.Module]], str]] = {
    "zeros": (lambda: [nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding=1)], r"1 \(Conv2d\) behind it pads with zeros"),
    "same": (lambda: [nn.BatchNorm2d(3), Conv2dSame(3, 8, 3)], "pads with zeros"),
    "transposed": (lambda: [nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 8, 3)], "is transposed"),
    "activation": (lambda: [BatchNormAct2d(3), nn.Conv2d(3, 8, 3)], "the model's input, and its own ReLU follows"),
    "nonlinear": (lambda: [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)], r"1 \(ReLU\), and .* the model's output"),
    "batch statistics": (
        lambda: [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)],
        "it has no running statistics",
    ),
    "tokens": (
        lambda: [nn.Conv2d(3, 8, 1), nn.Flatten(2), nn.Linear(64, 8), nn.BatchNorm1d(8)],
        "channels in another place",
    ),
}


class Block(nn.Module):
    """A convolution and a BatchNorm, and what a forward can do with them."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.bn = nn.BatchNorm2d(3)
        self.other = nn.Conv2d(3, 3, 3)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


SHARED: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "two readers": (lambda m, x: m.bn(y := m.conv(x)) + y, r"conv \(Conv2d\) ahead of it has 2 readers"),
    "convolution twice": (lambda m, x: m.bn(m.conv(x)) + m.conv(x), r"conv \(Conv2d\) ahead of it is called 2 times"),
    "norm twice": (lambda m, x: m.bn(m.conv(x)) + m.bn(x)[..., 2:, 2:], "it is called 2 times"),
    "norm ahead of two": (lambda m, x: m.conv(y := m.bn(x)) + m.other(y), "its output has 2 readers"),
    "arithmetic between": (lambda m, x: m.bn(m.conv(x) * 2), "its input comes from mul"),
    "in eval mode": (lambda m, x: m.bn(m.conv(x)) if m.training else m.conv(x), "it is not called in eval mode"),
    "function": (
        lambda m, x: F.batch_norm(m.conv(x), m.bn.running_mean, m.bn.running_var),
        "it is not called in eval mode",
    ),
    "control flow": (lambda m, x: m.bn(m.conv(x)) if x.sum() > 0 else x, r"torch\.fx can't enter the model around it"),
}


def reason(model: nn.Module) -> str:
    """Return why the only BatchNorm stays."""
    pairs, kept = find_pairs(model.eval(), {"bn": 4})
    assert pairs == []
    (text,) = kept.values()
    return text


def test_a_pair_is_found() -> None:
    model = Block(lambda m, x: m.bn(m.conv(x)))
    assert find_pairs(model, {"bn": 4}) == ([Pair("bn", "conv", behind=True)], {})
    ahead = Block(lambda m, x: m.conv(m.bn(x)))
    assert find_pairs(ahead, {"bn": 4}) == ([Pair("bn", "conv", behind=False)], {})


@pytest.mark.parametrize("name", KEPT)
def test_what_would_not_be_exact_stays(name: str) -> None:
    build, expected = KEPT[name]
    model = nn.Sequential(*build()).eval()
    dimensions = {str(len(model) - 1): 3} if name == "tokens" else {}
    pairs, kept = find_pairs(model, dict.fromkeys(map(str, range(9)), 4) | dimensions)
    assert pairs == []
    assert re.search(expected, next(iter(kept.values()))), kept


@pytest.mark.parametrize("name", SHARED)
def test_what_others_use_stays(name: str) -> None:
    run, expected = SHARED[name]
    assert re.search(expected, reason(Block(run)))


def straight() -> Block:
    return Block(lambda m, x: m.bn(m.conv(x)))


def test_tied_weights_stay() -> None:
    model = straight()
    model.other.weight = model.conv.weight
    assert "conv (Conv2d) ahead of it shares its tensors with another layer" in reason(model)


def test_hooks_stay() -> None:
    for name in ("conv", "bn"):
        model = straight()
        handle = model.get_submodule(name).register_forward_hook(lambda *_: None)
        assert "has hooks" in reason(model)
        handle.remove()
        assert find_pairs(model, {"bn": 4})[1] == {}


def test_computed_weights_stay() -> None:
    model = straight()
    parametrizations.weight_norm(model.conv)
    assert "computes its weight from other tensors" in reason(model)


def test_another_arithmetic_stays() -> None:
    class Doubled(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = straight()
    model.bn = Doubled(3)
    assert "Doubled has an arithmetic of its own" in reason(model)
    model = straight()
    model.conv = StdConv2d(3, 3, 3)
    assert "conv (StdConv2d) ahead of it has an arithmetic of its own" in reason(model)


def test_a_subclass_of_the_same_arithmetic_is_paired() -> None:
    class Named(nn.Conv2d):
        pass

    model = straight()
    model.conv = Named(3, 3, 3)
    assert find_pairs(model, {"bn": 4})[1] == {}
