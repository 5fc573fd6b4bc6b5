"""make_switchable: parity for every kind of BatchNorm, an untouched source, and what is refused."""

import copy
from functools import partial

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d, ScaledStdConv2d, StdConv2d
from timm.layers.split_batchnorm import SplitBatchNorm2d
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from rsconvert.errors import ConfigError, ResolutionError, UnsupportedModelError
from rsconvert.models import create_model
from rsconvert.surgery import SwitchableBN, make_switchable

RESOLUTIONS = (64, 48, 32)


class Pooled(nn.Module):
    """BatchNorm1d on pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x).mean((2, 3))))


class Clip(nn.Module):
    """BatchNorm3d on a clip of frames."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv3d(3, 4, 3, stride=4), nn.BatchNorm3d(4)

    def forward(self, x):
        return self.norm(self.conv(x)).mean((2, 3, 4))


class Shared(nn.Module):
    """One BatchNorm under two names, called twice, and referenced from a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.bn = nn.BatchNorm2d(4)
        self.same = self.bn
        self.plain = [self.bn]

    def forward(self, x):
        return self.plain[0](self.same(self.bn(self.conv(x)) + 1)).mean((2, 3))


class Rooted(nn.Module):
    """Parameters and buffers at the root, and a forward that is bound to another method."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.conv, self.bn = (
            nn.Parameter(torch.ones(4, 1, 1)),
            nn.Conv2d(3, 4, 4, stride=4),
            nn.BatchNorm2d(4),
        )
        self.register_buffer("shift", torch.full((1,), 0.5))
        self.register_buffer("table", torch.ones(1), persistent=False)
        self.forward = self.run

    def run(self, x):
        return (self.bn(self.conv(x)) * self.scale + self.shift + self.table).mean((2, 3))


NORMS = {
    "BatchNorm2d": nn.BatchNorm2d,
    "BatchNormAct2d": BatchNormAct2d,
    "PReLU": partial(BatchNormAct2d, act_layer=nn.PReLU),
    "SyncBatchNorm": nn.SyncBatchNorm,
    "SplitBatchNorm2d": SplitBatchNorm2d,
    "FrozenBatchNorm2d": FrozenBatchNorm2d,
    "FrozenBatchNormAct2d": FrozenBatchNormAct2d,
    "affine=False": partial(nn.BatchNorm2d, affine=False),
    "track_running_stats=False": partial(nn.BatchNorm2d, track_running_stats=False),
    "no tensor at all": partial(nn.BatchNorm2d, affine=False, track_running_stats=False),
    "momentum=None": partial(nn.BatchNorm2d, momentum=None),
}


def check_parity(model: nn.Module, write, write_all, inputs, **options) -> None:
    net = write_all(make_switchable(model, RESOLUTIONS, **options)).eval()
    for resolution in RESOLUTIONS:
        source = write(copy.deepcopy(model), resolution).eval()
        x = inputs(resolution)
        assert torch.equal(net.at(resolution)(x), source(x))
        assert torch.equal(net(x), source(x))
        assert list(net.at(resolution).state_dict()) == list(source.state_dict())
        assert type(net.at(resolution)) is type(source)


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_every_path_is_the_source_with_the_same_tensors(norm, tiny, write, write_all, image) -> None:
    check_parity(tiny(norm), write, write_all, image)


@pytest.mark.parametrize("model", [Pooled, Shared, Rooted])
def test_every_path_is_the_source_whatever_its_shape(model, write, write_all, image) -> None:
    check_parity(model(), write, write_all, image)


def test_a_clip_switches_by_the_size_of_its_frames(write, write_all) -> None:
    example = lambda r: (torch.randn(1, 3, 8, r, r),)  # noqa: E731
    check_parity(Clip(), write, write_all, lambda r: torch.randn(1, 3, 5, r, r), example=example)


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "test_efficientnet", "test_resnet.r160_in1k"])
def test_networks_of_timm(name: str, write, write_all, image) -> None:
    check_parity(timm.create_model(name), write, write_all, image)


def test_a_space_to_depth_stem_gets_images_of_three_colours(tiny) -> None:
    model = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 3, 3, padding=1), nn.BatchNorm2d(3))
    assert make_switchable(model, (64, 32)).report.exact == {64: True, 32: True}


def test_the_source_stays_as_it_was(tiny) -> None:
    model = tiny().train()
    model.bn1.eval()
    before = copy.deepcopy(model.state_dict())
    generator = torch.get_rng_state()
    net = make_switchable(model, RESOLUTIONS)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training
    assert not model.bn1.training
    own = {t.data_ptr() for t in model.state_dict().values()}
    assert own.isdisjoint(t.data_ptr() for t in net.state_dict().values())
    for module in model.modules():
        assert len(module._forward_hooks) + len(module._forward_pre_hooks) == 0
        assert not isinstance(module, SwitchableBN)


def test_each_module_keeps_its_own_mode_eps_and_momentum(tiny) -> None:
    model = tiny().train()
    model.bn1.eval()
    model.bn1.eps, model.bn2.momentum = 1e-2, 0.7
    net = make_switchable(model, RESOLUTIONS)
    for resolution in RESOLUTIONS:
        path = net.at(resolution)
        assert (path.bn1.eps, path.bn1.momentum, path.bn1.training) == (1e-2, 0.1, False)
        assert (path.bn2.eps, path.bn2.momentum, path.bn2.training) == (1e-5, 0.7, True)
        assert path.training


def test_resolutions_are_sorted() -> None:
    assert make_switchable(timm.create_model("resnet10t"), (32, 64)).resolutions == (64, 32)


@pytest.mark.parametrize(
    ("resolutions", "message"),
    [
        (48, "resolutions is 48; a list of numbers of pixels is needed. Write [48]."),
        ((), "resolutions is empty; at least one"),
        ((64, 48, 64), "resolutions has 64 twice: 64,48,64; each resolution needs one BN set. Remove the repeat."),
        ((64, 0), "resolutions has 0: 64,0; positive whole numbers"),
        ((64, -32), "resolutions has -32"),
        ((64, True), "resolutions has True"),
        ((64, 48.0), "resolutions has 48.0"),
        ((64, "32"), "resolutions has '32'"),
    ],
)
def test_malformed_resolutions_are_refused(resolutions, message: str, tiny) -> None:
    with pytest.raises(ResolutionError) as error:
        make_switchable(tiny(), resolutions)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_resolution_too_small_names_the_module(tiny) -> None:
    with pytest.raises(
        ResolutionError, match=r"Tiny does not work at 2: at 2 conv1 fails at .*; .*works at 512, .*, 32\."
    ):
        make_switchable(tiny(), (64, 2))


def test_no_batchnorm_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"convnext_atto has no BatchNorm to convert; .* Choose another"):
        make_switchable(create_model("convnext_atto"), (64, 32))


class Hidden(nn.Module):
    """A BatchNorm that only a plain list holds."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.conv, self.hidden = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), [nn.BatchNorm2d(3).eval()]

    def forward(self, x):
        return self.hidden[0](self.bn(self.conv(x)))


class Moody(nn.Module):
    """Computes something else at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.calls = nn.BatchNorm2d(3), 0

    def forward(self, x):
        self.calls += 1
        return self.bn(x) + self.calls


class Computed(nn.Module):
    """Holds a tensor that carries gradients and is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.weight = nn.BatchNorm2d(3), nn.Parameter(torch.ones(3, 1, 1))
        self.twice = self.weight * 2

    def forward(self, x):
        return self.bn(x) * self.twice


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Hidden, "Hidden calls F.batch_norm with a running_mean that is no tensor of the model"),
        (Computed, "Computed can't be copied"),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 1), nn.BatchNorm2d(4)), "lazy tensor 0.weight"),
        (lambda: nn.BatchNorm2d(3), "BatchNorm2d itself"),
    ],
)
def test_what_cannot_be_converted_is_refused(model, message: str) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        make_switchable(model(), (64, 32))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_that_depends_on_more_than_its_input_is_refused() -> None:
    model = Moody()
    calls = iter(range(100))
    model.register_forward_hook(lambda module, args, output: output + next(calls))
    with pytest.raises(UnsupportedModelError, match=r"Moody computes other values after conversion at \[64, 32\]"):
        make_switchable(model, (64, 32))


def test_weight_standardization_and_instance_norm_are_left_alone() -> None:
    instance = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    model = nn.Sequential(StdConv2d(3, 4, 3), instance, ScaledStdConv2d(4, 4, 3), nn.BatchNorm2d(4))
    net = make_switchable(model, (64, 32))
    assert all(net.report.exact.values())
    assert [record.name for record in net.report.batchnorms] == ["3"]
    assert {key for key in net.state_dict() if ".at." in key} == {f"3.at.32.{key}" for key in model[3].state_dict()}


def test_plain_tensors_stay_with_each_path(tiny, image) -> None:
    model = tiny()
    model.bias = torch.ones(5)
    model.register_forward_hook(lambda module, args, output: output + module.bias)
    net = make_switchable(model, RESOLUTIONS).eval()
    assert torch.equal(net(image(48)), model.eval()(image(48)))


def test_a_name_is_kept_with_what_builds_it() -> None:
    net = make_switchable(timm.create_model("resnet10t", num_classes=7), (64,), name="resnet10t")
    assert (net.source.architecture, net.source.num_classes, net.source.model_kwargs) == ("resnet10t", 7, {})
    kwargs = {"num_classes": 7, "in_chans": 1}
    net = make_switchable(timm.create_model("resnet10t", **kwargs), (64,), name="resnet10t", model_kwargs=kwargs)
    assert (net.source.num_classes, net.source.model_kwargs) == (7, {"in_chans": 1})
    assert make_switchable(timm.create_model("resnet10t", in_chans=1), (64,)).source.architecture is None
    with pytest.raises(ConfigError, match="num_classes is '7'"):
        make_switchable(timm.create_model("resnet10t"), (64,), name="resnet10t", model_kwargs={"num_classes": "7"})


def test_a_function_s_name_is_kept_with_the_classes_it_was_given(tiny) -> None:
    for kwargs in ({}, {"num_classes": 5}):
        source = make_switchable(tiny(), (64,), name="mine.py:build", model_kwargs=kwargs).source
        assert (source.num_classes, source.model_kwargs) == (5, kwargs)


def test_arguments_without_a_name_are_refused(tiny) -> None:
    with pytest.raises(ConfigError, match="model_kwargs has in_chans without a name"):
        make_switchable(tiny(), (64,), model_kwargs={"in_chans": 3})


def test_one_set_for_all(tiny, image) -> None:
    model = tiny()
    net = make_switchable(model, RESOLUTIONS, private=False)
    assert [key for key in net.state_dict() if key != "rsconvert.alpha"] == list(model.state_dict())
    assert net.report.exact == dict.fromkeys(RESOLUTIONS, True)
    net.train()
    net(image(32))
    assert net.at(64).bn1.running_mean is net.at(32).bn1.running_mean
    assert net.at(64).bn1.num_batches_tracked == 1


def test_half_precision_is_proved_too(tiny) -> None:
    assert all(make_switchable(tiny().bfloat16(), RESOLUTIONS).report.exact.values())
