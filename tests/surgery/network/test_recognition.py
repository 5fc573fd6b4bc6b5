"""Which modules are BatchNorms: known classes, and those written by hand, converted as any other; nothing else."""

import copy

import pytest
import torch
import torch.nn.functional as F
from timm.layers import (
    BatchNormAct2d,
    EvoNorm2dB0,
    FilterResponseNormTlu2d,
    FrozenBatchNormAct2d,
    GroupNorm,
    GroupNormAct,
    LayerNorm2d,
    ScaledStdConv2d,
    StdConv2d,
)
from timm.layers.split_batchnorm import SplitBatchNorm2d
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

import rsconvert
from rsconvert.errors import UnsupportedModelError
from rsconvert.surgery import SwitchableBN, batchnorms, fold_batchnorm, is_batchnorm, make_switchable
from rsconvert.surgery.network.recognition import holds_running_statistics

RESOLUTIONS = (64, 48, 32)


class Frozen(nn.Module):
    """As in DETR: four buffers and arithmetic."""

    def __init__(self, channels: int, names: tuple[str, ...] = ("weight", "bias")) -> None:
        super().__init__()
        for name in (*names, "running_mean", "running_var"):
            self.register_buffer(
                name, torch.ones(channels) if name in ("weight", "running_var") else torch.zeros(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.reshape(1, -1, 1, 1), self.bias.reshape(1, -1, 1, 1)
        scale = weight * (self.running_var.reshape(1, -1, 1, 1) + 1e-5).rsqrt()
        return x * scale + (bias - self.running_mean.reshape(1, -1, 1, 1) * scale)


class Counting(Frozen):
    """As in detectron2: F.batch_norm, and a count."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, 1e-3)


class Measured(Frozen):
    """With an epsilon that is a tensor."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("eps", torch.tensor(1e-3))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=float(self.eps))


class Plain(Frozen):
    """Without weight and bias."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, ())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.running_mean[:, None, None]) / (self.running_var[:, None, None].sqrt() + 1e-5)


class Trained(Frozen):
    """Parameters, statistics that move in train mode, an activation of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, ())
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training)
        return self.act(x)


class Last(Frozen):
    """Channels last, of tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.running_mean) * (self.running_var + 1e-5).rsqrt() * self.weight + self.bias


class Instance(Frozen):
    """Normalizes by the image itself."""

    def forward(self, x: Tensor) -> Tensor:
        x = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True) + 1e-5).sqrt()
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class PlainInstance(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True) + 1e-5).sqrt()


class Deviation(Frozen):
    """Its running_var is a standard deviation."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.running_var[:, None, None].rsqrt()


class Unused(Frozen):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class Softmax(Frozen):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


class Moving(nn.Module):
    """Other names and shapes, one of them no buffer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = (
            nn.Parameter(torch.ones(1, channels, 1, 1)),
            nn.Parameter(torch.zeros(1, channels, 1, 1)),
        )
        self.moving_mean, self.moving_var = torch.zeros(1, channels, 1, 1), torch.ones(1, channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * (x - self.moving_mean) / (self.moving_var + 1e-5).sqrt() + self.beta


BATCHNORMS = [Frozen, Counting, Measured, Plain, Trained, Last]
OTHERS = [Instance, PlainInstance, Deviation, Unused, Softmax]


@pytest.mark.parametrize("channels", [1, 3, 4, 64])
@pytest.mark.parametrize("kind", BATCHNORMS)
def test_what_computes_as_a_batchnorm_is_one(kind, channels: int) -> None:
    for module in (kind(channels), kind(channels).half(), kind(channels).to("meta")):
        assert is_batchnorm(module)


@pytest.mark.parametrize("kind", OTHERS)
def test_what_computes_something_else_is_none_but_looks_like_one(kind) -> None:
    assert not is_batchnorm(kind(4))
    assert holds_running_statistics(kind(4))


@pytest.mark.parametrize(
    "module",
    [
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.LayerNorm(4),
        nn.GroupNorm(2, 4),
        GroupNorm(4, 2),
        LayerNorm2d(4),
        FilterResponseNormTlu2d(4),
        StdConv2d(3, 4, 3),
        ScaledStdConv2d(3, 4, 3),
        nn.Conv2d(3, 4, 3),
        SwitchableBN(nn.BatchNorm2d(4), (64,)),
        SwitchableBN(Frozen(4), RESOLUTIONS),
    ],
)
def test_other_norms_are_left_alone(module: nn.Module) -> None:
    assert not is_batchnorm(module)
    assert isinstance(module, SwitchableBN) or not holds_running_statistics(module)


def test_tensors_of_other_shapes_or_that_no_file_holds_are_no_batchnorm_s() -> None:
    odd = Frozen(4)
    odd.weight = torch.ones(5)
    hidden = Frozen(4)
    hidden.register_buffer("running_var", torch.ones(4), persistent=False)
    more = Frozen(4)
    more.register_buffer("extra", torch.ones(4))
    assert not any(map(is_batchnorm, (odd, hidden, more)))


def test_an_instance_answers_for_itself() -> None:
    class Switched(Frozen):
        def __init__(self, on: bool) -> None:
            super().__init__(4)
            self.on = on

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if self.on else x

    bound = Frozen(4)
    bound.forward = lambda x: x
    assert [is_batchnorm(m) for m in (Switched(True), Switched(False), Switched(True), bound)] == [
        True,
        False,
        True,
        False,
    ]


def network(norm: type[nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), norm(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Sequential(norm(4))
    )


@pytest.mark.parametrize("norm", [Frozen, Counting, Plain, Trained])
def test_one_by_hand_is_converted_as_any_other(norm, write, write_all, image, tmp_path) -> None:
    model = network(norm)
    net = write_all(make_switchable(model, RESOLUTIONS)).eval()
    assert list(batchnorms(model)) == ["1", "4", "5.0"]
    assert next((r.name, r.kind, r.found) for r in net.report.batchnorms) == ("1", norm.__name__, "graph")
    assert str(net.report).startswith("3 of 3 BatchNorms converted (3 by graph)")
    assert (net.other_private_tensors(), net.report.unconverted, net.report.warnings) == ([], (), ())
    for resolution in RESOLUTIONS:
        own = write(copy.deepcopy(model), resolution).eval()
        assert torch.equal(net(image(resolution)), own(image(resolution)))
    rsconvert.save(net, tmp_path / "net.safetensors")
    again = rsconvert.load(tmp_path / "net.safetensors", model=network(norm)).eval()
    alone = rsconvert.load(tmp_path / "net.safetensors", model=network(norm), resolution=48).eval()
    assert torch.equal(again(image(40)), net(image(40)))
    assert torch.equal(alone(image(48)), net(image(48)))


def test_what_looks_like_one_is_named_and_counted() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), *(Moving(4) for _ in range(18)), Instance(4), EvoNorm2dB0(4)
    )
    report = make_switchable(model, (64, 32)).report
    assert str(report).startswith("1 of 21 BatchNorms converted")
    assert len(report.unconverted) == 20
    (warning,) = report.warnings
    assert warning.startswith("2, 3, 4 and 17 more: running statistics, but no BatchNorm that is known")
    with pytest.raises(UnsupportedModelError, match=r"no BatchNorm to convert \(1 holds running statistics"):
        make_switchable(nn.Sequential(nn.Conv2d(3, 4, 1), Instance(4)), (64, 32))


def test_f_batch_norm_with_tensors_of_other_names_stays_private_and_unnamed() -> None:
    class Named(Frozen):
        def __init__(self) -> None:
            super().__init__(4, ())
            self.gamma = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return F.batch_norm(x, self.running_mean, self.running_var, self.gamma)

    net = make_switchable(nn.Sequential(nn.Conv2d(3, 4, 1), Named()), (64, 32))
    assert net.report.unconverted == ()
    assert sorted(net.other_private_tensors()) == ["1.gamma", "1.running_mean", "1.running_var"]


def test_folding_leaves_one_by_hand_and_says_so() -> None:
    _, report = fold_batchnorm(network(Frozen).eval(), 32)
    assert "arithmetic of its own" in report.kept["1"]
    assert report.folded == {"4": "3"}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.BatchNorm1d(2), True),
        (nn.BatchNorm3d(2), True),
        (nn.SyncBatchNorm(2), True),
        (BatchNormAct2d(2), True),
        (SplitBatchNorm2d(2), True),
        (FrozenBatchNorm2d(2), True),
        (FrozenBatchNormAct2d(2), True),
        (nn.InstanceNorm2d(2, track_running_stats=True), False),
        (nn.GroupNorm(1, 2), False),
        (GroupNormAct(2, 1), False),
        (nn.LayerNorm(2), False),
    ],
)
def test_what_counts_as_a_batchnorm(module: nn.Module, expected: bool) -> None:
    assert is_batchnorm(module) is expected


def test_batchnorms_are_the_outermost_under_all_their_names() -> None:
    shared = nn.BatchNorm2d(2)
    model = nn.ModuleDict({"one": shared, "split": SplitBatchNorm2d(2), "deep": nn.Sequential(nn.Identity(), shared)})
    assert batchnorms(model) == {"one": shared, "split": model["split"], "deep.1": shared}
    assert batchnorms(shared) == {"": shared}
