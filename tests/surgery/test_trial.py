"""A watched forward on scrambled values: what ran, what failed where, and who normalizes by a function."""

import contextlib

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import StdConv2d
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from rsconvert.errors import UnsupportedModelError
from rsconvert.surgery import eval_mode
from rsconvert.surgery.trial import equal_outputs, fill_zeros, fitted_inside, run_trial, scrambled, tensors, write

IMAGE = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    """A BatchNorm by hand: F.batch_norm, or torch.batch_norm, on tensors of its own."""

    def __init__(self, low: bool = False) -> None:
        super().__init__()
        self.low = low
        self.scale, self.shift = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x):
        if self.low:
            return torch.batch_norm(x, self.scale, self.shift, self.mean, self.var, self.training, 0.1, 1e-5, False)
        return F.batch_norm(x, self.mean, self.var, weight=self.scale, bias=self.shift, training=self.training)


def test_every_run_of_a_batchnorm_is_counted_with_what_it_gave() -> None:
    bn = nn.BatchNorm2d(3).eval()
    trial = run_trial(nn.Sequential(bn, bn, nn.ReLU()), (IMAGE,))
    assert trial.calls == {"0": 2, "1": 2}  # one module under two names counts under both
    assert trial.failure is None
    wanted = float(bn(IMAGE).detach().sum(dtype=torch.float64))
    assert dict(trial.sums[:1]) == {"0": pytest.approx(wanted, abs=1e-12)}


def test_a_failure_names_the_innermost_module_and_the_line_and_leaves_no_hook() -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 5)))
    trial = run_trial(model, (IMAGE,))
    assert trial.failure is not None
    assert trial.failure.startswith("0.2 fails at ")
    assert "Kernel size" in trial.failure
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_line_is_the_model_s_own() -> None:
    class Strict(nn.Module):
        def forward(self, x):
            return x.view(7, -1)

    failure = run_trial(nn.Sequential(Strict()), (IMAGE,)).failure
    assert failure is not None
    assert failure.startswith("0 fails at test_trial.py:")
    assert "(return x.view(7, -1))" in failure


def test_a_failure_of_the_root_names_its_class() -> None:
    class Square(nn.Module):
        def forward(self, x):
            raise ValueError("\n")

    assert (run_trial(Square(), (IMAGE,)).failure or "").startswith("Square fails at test_trial.py:")


@pytest.mark.parametrize("low", [False, True])
def test_a_functional_batchnorm_tells_its_tensors(low: bool) -> None:
    trial = run_trial(nn.Sequential(Functional(low)).eval(), (IMAGE,))
    assert trial.calls == {"0.mean": 1}
    assert trial.functional == {
        "0.mean": "running_mean",
        "0.var": "running_var",
        "0.scale": "weight",
        "0.shift": "bias",
    }


def test_weight_standardization_is_no_batchnorm() -> None:
    trial = run_trial(nn.Sequential(StdConv2d(3, 4, 3), nn.InstanceNorm2d(4)), (IMAGE,))
    assert trial.calls == {}
    assert trial.functional == {}


def test_statistics_that_nobody_registered_are_refused() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.var = [torch.zeros(3)], [torch.ones(3)]

        def forward(self, x):
            return F.batch_norm(x, self.mean[0], self.var[0])

    with pytest.raises(UnsupportedModelError, match=r"0 calls F\.batch_norm with a running_mean that is no tensor of"):
        run_trial(nn.Sequential(Hidden()), (IMAGE,))


def test_maps_of_one_value_are_told() -> None:
    model = nn.Sequential(
        nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(3)
    )
    assert run_trial(model.eval(), (IMAGE,)).single == {"2", "4"}


@pytest.fixture(params=["tiny", "resnet10t"])
def model(request, tiny) -> nn.Module:
    return tiny() if request.param == "tiny" else timm.create_model(request.param, num_classes=4)


def test_they_differ_by_resolution_and_stay_usable(model) -> None:
    one, other = scrambled(model, 64), scrambled(model, 48)
    assert one.keys() == other.keys()
    assert {name.rpartition(".")[2] for name in one} == {"weight", "bias", "running_mean", "running_var"}
    for name, value in one.items():
        assert (value != other[name]).any()
        assert value.isfinite().all()
        assert torch.equal(value, scrambled(model, 64)[name])
        assert not name.endswith("running_var") or (value > 0).all()


def test_nothing_is_written_before_it_is_asked_for(tiny) -> None:
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    values = scrambled(model, 64)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    write(model, values)
    assert all(torch.equal(tensors(model)[name], value) for name, value in values.items())
    assert torch.equal(model.conv1.weight, before["conv1.weight"])


def test_a_lone_batchnorm_has_names_without_a_prefix() -> None:
    assert set(scrambled(nn.BatchNorm2d(3), 64)) == {"weight", "bias", "running_mean", "running_var"}


def test_tensors_of_functions_are_scrambled_by_their_part() -> None:
    model = nn.Module()
    model.register_buffer("spread", torch.ones(4))
    values = scrambled(model, 64, {"spread": "running_var"})
    assert set(values) == {"spread"}
    assert (values["spread"] > 0).all()
    assert (values["spread"] != 1).all()


def test_parameters_that_are_zero_throughout_are_filled(tiny) -> None:
    model = tiny()
    nn.init.zeros_(model.fc.weight)
    filled = fill_zeros(model)
    assert {"fc.weight", "bn1.bias", "bn2.bias"} == set(filled)
    assert filled["fc.weight"].any()


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_each_module_gets_its_own_mode_back(error: type[Exception] | None) -> None:
    models = [nn.Sequential(nn.Dropout(), nn.BatchNorm2d(2)).train(), nn.Sequential(nn.ReLU()).eval()]
    models[0][1].eval()
    with contextlib.suppress(RuntimeError), eval_mode(iter(models)):
        assert not any(m.training for model in models for m in model.modules())
        if error:
            raise error
    assert [m.training for model in models for m in model.modules()] == [True, True, False, False, False]


class Inside(nn.Module):
    """Resizes inside, as a detector does."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = GeneralizedRCNNTransform(48, 80, [0.0] * 3, [1.0] * 3)
        self.bn = nn.BatchNorm2d(3)

    def forward(self, images):
        return self.bn(self.transform(images)[0].tensors)


def test_a_model_that_resizes_inside_does_so_to_the_resolution_of_a_trial() -> None:
    model, images = Inside().eval(), [torch.rand(3, 40, 40)]
    assert run_trial(model, (images,), 96).output.shape[-2:] == (96, 96)
    assert (model.transform.min_size, model.transform.max_size) == ((48,), 80)
    assert run_trial(model, (images,)).output.shape[-2:] == (64, 64)  # 48, filled up to a multiple of 32
    with contextlib.suppress(ValueError), fitted_inside(model, 32):
        assert model.transform.min_size == (32,)
        raise ValueError
    assert model.transform.min_size == (48,)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.nan]), True),
        (torch.tensor([1.0, torch.nan]), torch.tensor([torch.nan, 1.0]), False),
        (torch.ones(2), torch.ones(2, dtype=torch.float64), False),
        (torch.ones(2), torch.ones(1), False),
        ({"a": [torch.ones(1), 3]}, {"a": [torch.ones(1), 3]}, True),
        ({"a": [torch.ones(1), 3]}, {"a": [torch.ones(1), 4]}, False),
        ([torch.ones(1)], [torch.ones(1), torch.ones(1)], False),
        (float("nan"), float("nan"), True),
    ],
)
def test_outputs_are_compared_bit_for_bit(one, other, equal: bool) -> None:
    assert equal_outputs(one, other) is equal
