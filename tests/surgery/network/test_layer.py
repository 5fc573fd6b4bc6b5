"""The layers of sets: names, sharing, and interpolation against NumPy."""

import copy
import pickle

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from rsconvert.errors import ResolutionError, TrainingError
from rsconvert.surgery import SwitchableBN, interpolation_weights

RESOLUTIONS = (64, 48, 32)
TENSORS = ("weight", "bias", "running_mean", "running_var")


def different_sets(bn: nn.Module, resolutions: tuple[int, ...] = RESOLUTIONS) -> SwitchableBN:
    switchable = SwitchableBN(bn, resolutions)
    with torch.no_grad():
        for tensor in (*switchable.parameters(), *switchable.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return switchable


def test_the_native_set_bears_the_source_s_names() -> None:
    keys = set(SwitchableBN(nn.BatchNorm2d(4), RESOLUTIONS).state_dict())
    own = {*TENSORS, "num_batches_tracked"}
    assert keys == own | {f"at.{r}.{name}" for r in (48, 32) for name in own}


def test_every_tensor_is_registered_once() -> None:
    switchable = SwitchableBN(BatchNormAct2d(4, act_layer=nn.PReLU), RESOLUTIONS)
    tensors = [*switchable.named_parameters(remove_duplicate=False), *switchable.named_buffers(remove_duplicate=False)]
    assert len(tensors) == len({id(tensor) for _, tensor in tensors}) == 3 * 6
    assert "act.weight" in dict(tensors)
    assert "at.48.act.weight" in dict(tensors)


def test_the_source_is_left_alone() -> None:
    bn = nn.BatchNorm2d(4, eps=1e-3, momentum=None)
    before = copy.deepcopy(bn.state_dict())
    switchable = different_sets(bn)
    assert all(torch.equal(before[key], value) for key, value in bn.state_dict().items())
    assert {id(t) for t in bn.state_dict(keep_vars=True).values()}.isdisjoint(
        id(t) for t in switchable.state_dict(keep_vars=True).values()
    )
    assert [(one.eps, one.momentum) for one in switchable.sets] == [(1e-3, None)] * 3


@pytest.mark.parametrize("change", [nn.Module.half, nn.Module.double, lambda m: m.to(torch.bfloat16)])
def test_the_native_set_follows_the_layer(change) -> None:
    switchable = SwitchableBN(nn.BatchNorm2d(4), RESOLUTIONS)
    change(switchable)
    for name in TENSORS:
        assert getattr(switchable.native, name) is switchable.state_dict(keep_vars=True)[name]
        assert getattr(switchable.native, name).dtype == switchable.native.weight.dtype != torch.float32


@pytest.mark.parametrize("assign", [False, True])
def test_the_native_set_follows_load_state_dict(assign: bool) -> None:
    switchable, other = SwitchableBN(nn.BatchNorm2d(4), RESOLUTIONS), different_sets(nn.BatchNorm2d(4))
    switchable.load_state_dict(other.state_dict(), assign=assign)
    for mine, others in zip(switchable.sets, other.sets, strict=True):
        assert all(torch.equal(getattr(mine, name), getattr(others, name)) for name in TENSORS)
    assert switchable.native.running_var is switchable.state_dict(keep_vars=True)["running_var"]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_whole_and_its_own(again) -> None:
    first = different_sets(nn.BatchNorm2d(4))
    second = again(first)
    assert second.native.weight is second.state_dict(keep_vars=True)["weight"]
    assert torch.equal(second.native.weight, first.native.weight)
    with torch.no_grad():
        second.native.weight.zero_()
    assert first.native.weight.all()


def test_train_and_eval_reach_every_set() -> None:
    switchable = SwitchableBN(nn.BatchNorm2d(4).eval(), RESOLUTIONS)
    assert not any(one.training for one in (switchable, *switchable.sets))
    switchable.train()
    assert all(one.training for one in switchable.sets)
    switchable.eval()
    assert not any(one.training for one in switchable.sets)


def test_a_trained_resolution_is_the_live_set() -> None:
    switchable = SwitchableBN(nn.BatchNorm2d(4), RESOLUTIONS)
    assert [switchable.bn_set(r) for r in RESOLUTIONS] == list(switchable.sets)
    assert switchable.bn_set(64) is switchable.native


@pytest.mark.parametrize(
    ("resolution", "upper", "lower", "share"), [(56, 0, 1, 0.5), (36, 1, 2, 0.25), (47, 1, 2, 15 / 16)]
)
def test_between_two_sets_every_tensor_is_the_linear_interpolation(resolution, upper, lower, share) -> None:
    switchable = different_sets(BatchNormAct2d(4, act_layer=nn.PReLU))
    snapshot = switchable.bn_set(resolution)
    for name in (*TENSORS, "act.weight"):
        high, low = (switchable.sets[i].state_dict()[name].numpy().astype(np.float64) for i in (upper, lower))
        expected = share * high + (1 - share) * low
        np.testing.assert_allclose(snapshot.state_dict()[name].numpy(), expected, rtol=1e-6)
    assert not snapshot.training
    assert not any(p.requires_grad for p in snapshot.parameters())


@pytest.mark.parametrize(("resolution", "nearest"), [(65, 0), (1000, 0), (31, 2), (1, 2)])
def test_beyond_the_ends_the_nearest_set_serves(resolution: int, nearest: int) -> None:
    switchable = different_sets(nn.BatchNorm2d(4))
    snapshot = switchable.bn_set(resolution)
    assert all(torch.equal(getattr(snapshot, n), getattr(switchable.sets[nearest], n)) for n in TENSORS)
    assert snapshot.weight is not switchable.sets[nearest].weight


def test_equal_sets_give_equal_bits() -> None:
    bn = nn.BatchNorm2d(64)
    nn.init.normal_(bn.weight)
    bn.running_var.uniform_(0.1, 9.0)
    for resolution in range(32, 65):
        snapshot = SwitchableBN(bn, (64, 32)).bn_set(resolution)
        assert all(torch.equal(getattr(snapshot, name), getattr(bn, name)) for name in TENSORS)


def test_one_resolution_serves_every_size() -> None:
    switchable = different_sets(nn.BatchNorm2d(4), (64,))
    assert torch.equal(switchable.bn_set(40).running_mean, switchable.native.running_mean)
    assert interpolation_weights(40, (64,)) == (1.0,)


def test_the_weights_are_a_partition_of_one() -> None:
    nodes = (224, 192, 160, 128, 96)
    for resolution in np.linspace(1, 300, 200):
        weights = interpolation_weights(float(resolution), nodes)
        expected = [np.interp(resolution, nodes[::-1], np.eye(5)[i][::-1]) for i in range(5)]
        np.testing.assert_allclose(weights, expected, atol=1e-12)
    assert [interpolation_weights(r, nodes) for r in nodes] == [tuple(row) for row in np.eye(5)]


@pytest.mark.parametrize("resolution", [0, -32, float("nan")])
def test_a_size_that_is_not_positive_is_refused(resolution: float) -> None:
    with pytest.raises(ResolutionError, match="a positive number of pixels"):
        interpolation_weights(resolution, RESOLUTIONS)


@pytest.mark.parametrize("resolution", [64, 48, 32, 40, 57])
def test_with_weights_the_layer_is_the_mixture(resolution: int) -> None:
    switchable = different_sets(BatchNormAct2d(4)).eval()
    x = torch.randn(2, 4, 5, 5)
    weights = torch.tensor(interpolation_weights(resolution, RESOLUTIONS))
    expected = switchable.bn_set(resolution)(x)
    torch.testing.assert_close(switchable(x, weights), expected, rtol=1e-6, atol=1e-6)
    if resolution in RESOLUTIONS:
        assert torch.equal(switchable(x, weights), expected)


def test_autocast_does_not_round_the_mixture() -> None:
    switchable = different_sets(nn.BatchNorm2d(4)).eval()
    x, weights = torch.randn(2, 4, 5, 5), torch.tensor([0.3, 0.7, 0.0])
    plain = switchable(x, weights)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(switchable(x, weights), plain)


def test_with_weights_train_mode_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"eval mode only.*call eval\(\)"):
        SwitchableBN(nn.BatchNorm2d(4), RESOLUTIONS)(torch.ones(2, 4, 1, 1), torch.ones(3))


def test_the_layer_says_what_it_is() -> None:
    assert "resolutions=(64, 48, 32), native=BatchNormAct2d" in repr(SwitchableBN(BatchNormAct2d(4), RESOLUTIONS))
