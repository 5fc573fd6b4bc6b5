"""A folded path computes what the path computes, with fewer layers; which layer can take a BatchNorm, or why none."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, Conv2dSame, DropBlock2d, FrozenBatchNormAct2d, StdConv2d
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision.ops import FrozenBatchNorm2d

import rsconvert
from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.surgery import FoldReport, batchnorms, fold_batchnorm, folding
from rsconvert.surgery.folding import Pair, find_pairs
from rsconvert.surgery.trial import scrambled, write


def filled(model: nn.Module, key: int = 0) -> nn.Module:
    """Return the model in eval mode with BatchNorm tensors that hide nothing."""
    write(model, scrambled(model, key))
    return model.eval()


def images(resolution: int, *shape: int) -> Tensor:
    return torch.rand(*(shape or (2, 3)), resolution, resolution, generator=torch.Generator().manual_seed(7))


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


@pytest.mark.parametrize(
    ("name", "folded", "total", "resolution"),
    [
        ("efficientnet_b0", 49, 49, 64),
        ("efficientnet_b0", 49, 49, 32),
        ("densenet121", 59, 121, 64),  # of each layer the second, and the stem's: the first follows a concatenation
        ("repvgg_a0", 44, 61, 32),  # two branches of each of 22 blocks; the third is a BatchNorm alone
        ("mobilenetv2_100", 52, 52, 32),
        ("torchvision/mobilenet_v2", 52, 52, 64),
    ],
)
def test_what_can_be_folded_is(name: str, folded: int, total: int, resolution: int) -> None:
    torch.manual_seed(0)
    model = filled(rsconvert.create_model(name, num_classes=10), resolution)
    plain, report = fold_batchnorm(model, resolution)
    assert type(plain) is type(model)
    assert len(report.folded) == folded
    assert len(report.folded) + len(report.kept) == total == len(batchnorms(model))
    assert batchnorms(plain).keys() == report.kept.keys()
    assert 0 < report.difference < 1e-4
    x = images(resolution)
    with torch.no_grad():
        assert difference(model(x), plain(x)) < 1e-4


def test_what_stays_is_listed_with_the_reason() -> None:
    model = filled(rsconvert.create_model("densenet121"))
    _, report = fold_batchnorm(model, 64)
    assert report.kept["features.denseblock1.denselayer2.norm1"] == "its input comes from cat, and its own ReLU follows"
    assert report.folded["features.denseblock1.denselayer2.norm2"] == "features.denseblock1.denselayer2.conv1"
    assert str(report).startswith("64: 59 of 121 BatchNorms folded, difference ")
    assert "\n  kept features.norm5: its input comes from cat, and " in str(report)
    _, report = fold_batchnorm(filled(rsconvert.create_model("repvgg_a0")), 64)
    assert (
        report.kept["stages.0.1.identity"] == "its input comes from stages.0.0.act (ReLU), and its output goes to add"
    )


BEHIND: dict[str, Callable[[], list[nn.Module]]] = {
    "plain": lambda: [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)],
    "bias": lambda: [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, eps=0.1)],
    "depthwise": lambda: [nn.Conv2d(3, 12, 3, groups=3, padding=1), nn.BatchNorm2d(12)],
    "grouped": lambda: [nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8)],
    "dilated": lambda: [nn.Conv2d(3, 4, 3, dilation=2, stride=2), nn.BatchNorm2d(4)],
    "same": lambda: [Conv2dSame(3, 4, 3, stride=2), nn.BatchNorm2d(4)],
    "transposed": lambda: [nn.ConvTranspose2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)],
    "grouped transposed": lambda: [
        nn.Conv2d(3, 4, 1),
        nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, padding=1),
        nn.BatchNorm2d(6),
    ],
    "1d": lambda: [nn.Conv2d(3, 4, 1), nn.Flatten(2), nn.Conv1d(4, 5, 3), nn.BatchNorm1d(5)],
    "3d": lambda: [nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4)],
    "linear": lambda: [nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 64, 5), nn.BatchNorm1d(5)],
    "linear without bias": lambda: [
        nn.Conv2d(3, 4, 1),
        nn.Flatten(),
        nn.Linear(4 * 64, 5, bias=False),
        nn.BatchNorm1d(5, affine=False),
    ],
    "not affine": lambda: [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)],
    "frozen": lambda: [nn.Conv2d(3, 8, 3), FrozenBatchNorm2d(8)],
    "dropout between": lambda: [nn.Conv2d(3, 8, 3), nn.Dropout(0.5), nn.Identity(), nn.BatchNorm2d(8)],
    "activation": lambda: [nn.Conv2d(3, 8, 3), BatchNormAct2d(8, act_layer=nn.Hardswish)],
    "activation and drop": lambda: [nn.Conv2d(3, 8, 3), BatchNormAct2d(8, drop_layer=DropBlock2d)],
    "frozen activation": lambda: [nn.Conv2d(3, 8, 3), FrozenBatchNormAct2d(8)],
    "learnt activation": lambda: [nn.Conv2d(3, 8, 3), BatchNormAct2d(8, act_layer=nn.PReLU)],
}
AHEAD: dict[str, Callable[[], list[nn.Module]]] = {
    "plain": lambda: [nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, stride=2)],
    "without bias": lambda: [nn.BatchNorm2d(3), nn.Identity(), nn.Conv2d(3, 8, 1, bias=False)],
    "depthwise": lambda: [nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3, groups=3)],
    "grouped": lambda: [nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, groups=2)],
    "reflecting border": lambda: [nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect")],
    "linear": lambda: [nn.Conv2d(3, 4, 8), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 5)],
}


def chain(layers: list[nn.Module]) -> nn.Module:
    """Return the layers in float64: rounding hides no mistake."""
    return filled(nn.Sequential(*layers)).double()


@pytest.mark.parametrize("name", BEHIND)
@torch.no_grad()
def test_a_layer_takes_over_the_batchnorm_behind_it(name: str) -> None:
    check_folded(chain(BEHIND[name]()))


@pytest.mark.parametrize("name", AHEAD)
@torch.no_grad()
def test_a_layer_takes_over_the_batchnorm_ahead_of_it(name: str) -> None:
    check_folded(chain(AHEAD[name]()))


@torch.no_grad()
def test_a_layer_takes_over_two() -> None:
    layers = [nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)]
    report = check_folded(chain(layers))
    assert report.folded == {"0": "1", "2": "1"}


def check_folded(model: nn.Module) -> FoldReport:
    folded, report = fold_batchnorm(model, 8)
    x = images(8, 2, 3, 16) if isinstance(model[0], nn.Conv3d) else images(8)
    assert difference(model(x.double()), folded(x.double())) < 1e-12
    assert report.kept == {}
    assert not batchnorms(folded)
    return report


@torch.no_grad()
def test_the_path_stays_as_it_was_and_shares_nothing() -> None:
    net = rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=5), (64, 48)).train()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    folded, _ = fold_batchnorm(net.at(48), 48)
    assert not any(module.training for module in folded.modules())
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks for module in (*net.at(48).modules(), *folded.modules()))
    for tensor in folded.state_dict().values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


@torch.no_grad()
def test_each_path_is_folded_with_its_own_set() -> None:
    net = rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=5), (64, 48)).eval()
    for resolution in net.resolutions:
        filled(net.at(resolution), resolution)
    folded = {resolution: fold_batchnorm(net.at(resolution), resolution)[0] for resolution in (64, 56, 48)}
    x = images(48)
    for resolution, plain in folded.items():  # 56 lies between two sets
        assert difference(net.at(resolution)(x), plain(x)) < 1e-4
    assert difference(folded[64](x), folded[48](x)) > 1e-2


@torch.no_grad()
def test_precision_and_memory_format_stay(tiny: Callable[[], nn.Module]) -> None:
    model = filled(tiny()).to(torch.bfloat16, memory_format=torch.channels_last)
    folded, report = fold_batchnorm(model, 32)
    assert {tensor.dtype for tensor in folded.state_dict().values()} == {torch.bfloat16}
    assert folded.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert 0 < report.difference < 0.1


def test_a_classifier_of_zeros_hides_no_difference(
    tiny: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = filled(tiny())
    nn.init.zeros_(model.fc.weight)
    own = folding._behind
    monkeypatch.setattr(folding, "_behind", lambda layer, bn: (own(layer, bn)[0], own(layer, bn)[1] * 1.01))
    with pytest.raises(UnsupportedModelError, match=r"Tiny folded differs by .* at 32 in float64; rounding alone"):
        fold_batchnorm(model, 32)


@torch.no_grad()
def test_rounding_that_grows_is_told_from_an_error() -> None:
    """A steep function turns the rounding of float32 into another number, and that of float64 into little."""

    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(1e6 * self.bn(self.conv(x)))

    model = filled(Steep())
    _, report = fold_batchnorm(model, 16)
    assert report.folded == {"bn": "conv"}
    assert report.difference > 1e-4


def test_numbers_that_are_none_prove_nothing(tiny: Callable[[], nn.Module]) -> None:
    model = filled(tiny())
    nn.init.constant_(model.fc.bias, float("nan"))
    with pytest.raises(UnsupportedModelError, match="differs by inf"):
        fold_batchnorm(model, 32)


def test_a_model_without_batchnorm_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="Sequential holds no BatchNorm"):
        fold_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 1)), 32)


def test_a_switchable_network_is_refused(tiny: Callable[[], nn.Module]) -> None:
    with pytest.raises(UnsupportedModelError, match=r"net\.at\(resolution\)"):
        fold_batchnorm(rsconvert.make_switchable(tiny(), (32, 24)), 32)


def test_a_resolution_that_does_not_work_is_refused() -> None:
    with pytest.raises(ResolutionError, match="resolution 2 does not work"):
        fold_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 2)


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
