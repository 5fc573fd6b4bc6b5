"""A switchable network with few-bit convolutions is one as any other."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from rsconvert.errors import ConfigError
from rsconvert.quantization import QuantizedConv2d, build_quantized, layout_of, quantize_
from rsconvert.surgery import SwitchableModel, fold_batchnorm, make_switchable
from tests.conftest import Tiny

SIDES = (36, 32, 28, 24, 16, 12)


def outputs(net: SwitchableModel) -> list[Tensor]:
    torch.manual_seed(1)
    with torch.no_grad():
        return [net(torch.rand(2, 3, side, side)) for side in SIDES]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_weights_are_shared_and_sets_stay(net: SwitchableModel) -> None:
    before, sets = outputs(net), {k: v.clone() for k, v in net.state_dict().items() if "bn" in k or "alpha" in k}
    report = quantize_(net, "2/32")
    assert str(report).splitlines() == ["1 of 2 convolutions quantized to 2/32 bits", "float: conv1 is the first"]
    assert layout_of(net) == report.layers == {"conv2": (2, 32)}
    convs = [net.at(r).conv2 for r in net.resolutions]
    assert len({id(conv) for conv in convs}) == 1
    assert isinstance(convs[0], QuantizedConv2d)
    assert isinstance(net.at(24), Tiny)
    state = net.state_dict()
    assert all(torch.equal(state[key], value) for key, value in sets.items())
    assert not net.restructured
    after = outputs(net)
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all((a - b).abs().max() < 0.3 * a.abs().max() for a, b in zip(before, after, strict=True))


def test_eight_bits_are_nearly_float(net: SwitchableModel) -> None:
    before = outputs(net)
    quantize_(net, "8/32")
    for one, other in zip(before, outputs(net), strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0)


@pytest.mark.parametrize("bits", ["2/32", "2/2"])
@pytest.mark.parametrize("bases", ["shared", "private"])
def test_copies_moves_and_single_paths_compute_the_same(net: SwitchableModel, bits: str, bases: str) -> None:
    if (bits, bases) == ("2/32", "private"):
        pytest.skip("has no activations")
    quantize_(net, bits, activation_bases=bases)  # type: ignore[arg-type]
    if bases == "private":
        net.at(24).conv2.activation.basis.mul_(0.5)
    assert net.alpha.dtype == torch.float32
    expected = outputs(net)
    assert same(outputs(copy.deepcopy(net)), expected)
    assert same(outputs(pickle.loads(pickle.dumps(net))), expected)
    assert same(outputs(net.to(memory_format=torch.channels_last).to(memory_format=torch.contiguous_format)), expected)
    loaded = copy.deepcopy(net)
    for tensor in loaded.state_dict().values():
        tensor.zero_()
    loaded.load_state_dict(net.state_dict())
    assert same(outputs(loaded), expected)
    torch.manual_seed(1)
    images = [torch.rand(2, 3, side, side) for side in SIDES]
    plain = [net.extract(side) for side in SIDES]
    assert same([path(image) for path, image in zip(plain, images, strict=True)], expected)


def test_private_bases_differ_shared_ones_do_not(net: SwitchableModel) -> None:
    shared = copy.deepcopy(net)
    quantize_(shared, "2/2")
    quantize_(net, "2/2", activation_bases="private")
    for own, count in ((shared, 1), (net, 3)):
        own.train()
        own(views=[torch.rand(2, 3, r, r) for r in own.resolutions])
        quantizers = {id(q): q for q in (own.at(r).conv2.activation for r in own.resolutions)}
        assert len(quantizers) == count
        assert {int(q.updates) for q in quantizers.values()} == {3 // count}
    assert sum("activation.at" in key for key in net.state_dict()) == 6
    middle = net.eval().at(20).conv2.activation.basis
    torch.testing.assert_close(middle, (net.at(24).conv2.activation.basis + net.at(16).conv2.activation.basis) / 2)


def test_other_bits_take_the_place_of_earlier_ones(net: SwitchableModel) -> None:
    quantize_(net, "4/4", activation_bases="private")
    quantize_(net, "2/32", keep_float="conv2")
    assert layout_of(net) == {"conv1": (2, 32)}
    assert type(net.at(24).conv2) is nn.Conv2d
    assert net.other_private_tensors() == []


def test_batchnorms_fold_into_weights_of_few_bits(net: SwitchableModel) -> None:
    quantize_(net, "2/32")
    folded, report = fold_batchnorm(net.extract(24), 24)
    assert report.folded["bn2"] == "conv2"
    x = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(folded(x), net(x))


def test_private_classifiers_and_a_new_one_go_along(net: SwitchableModel) -> None:
    own = make_switchable(Tiny(), (32, 16), private=("bn", "head"), large_head=True)
    own.train()
    quantize_(own, "2/2")
    assert own.training
    assert [name for name, _ in own.switchable_heads()] == ["fc"]
    assert all(q.training for q in (own.at(32).conv2.activation, own.at(16).conv2.activation))


def test_a_network_that_is_built_for_each_resolution() -> None:
    net = make_switchable(Tiny(), (32, 16), build=lambda resolution: Tiny()).eval()
    expected = None
    for _ in range(2):
        quantize_(net, "2/2")
        got = net(torch.ones(1, 3, 24, 24))
        assert isinstance(net.at(24).conv2, QuantizedConv2d)
        assert expected is None or torch.allclose(got, expected, atol=0.1)
        expected = got
    if net.build is not None:
        assert net.build.func is build_quantized
        assert net.build.args[0](32).conv2.__class__ is nn.Conv2d


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"bits": "2/33"}, "bits is '2/33'"),
        ({"bits": "2/32", "activation_bases": "private"}, "private with bits 2/32, which leaves activations float"),
        ({"bits": "2/2", "activation_bases": "own"}, "activation_bases is 'own'; shared or private"),
        ({"bits": "2/2", "keep_float": ["x"]}, "keep_float names 'x'"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    net: SwitchableModel, arguments: dict[str, str], match: str
) -> None:
    before = outputs(net)
    with pytest.raises(ConfigError, match=match):
        quantize_(net, **arguments)  # type: ignore[arg-type]
    assert layout_of(net) == {}
    assert same(outputs(net), before)
