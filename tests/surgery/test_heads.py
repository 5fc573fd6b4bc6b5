"""Private classifiers: exact at conversion, one per resolution, interpolated; what is refused, and what they cost."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import rsconvert
from rsconvert.errors import ConfigError, ResolutionError, RSConvertError, UnsupportedModelError
from rsconvert.models import create_model
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.surgery.network.layer import SwitchableHead

SIDES = (64, 48, 32)
BOTH = ("bn", "head")


@pytest.fixture
def net(tiny, write_all) -> SwitchableModel:
    """Two convolutions with a BatchNorm each, and a classifier; every set has values of its own."""
    return write_all(make_switchable(tiny(), SIDES, private=BOTH)).eval()


def run(model: nn.Module, side: int) -> Tensor:
    return model(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side)))


@pytest.mark.parametrize("private", [BOTH, ("head",)])
def test_each_path_is_the_source_at_first(tiny, private: tuple[str, ...]) -> None:
    model = tiny().eval()
    net = make_switchable(model, SIDES, private=private).eval()
    assert net.report.exact == dict.fromkeys(SIDES, True)
    for side in (*SIDES, 40):
        assert torch.equal(run(net, side), run(model, side))
    assert net.private is ("bn" in private)
    assert net.fc.native.weight is not model.fc.weight


def test_a_classifier_of_its_own_costs_what_the_report_says(tiny) -> None:
    """6 inputs and 5 classes: 35 numbers, twice."""
    plain, report = make_switchable(tiny(), SIDES).report, make_switchable(tiny(), SIDES, private=BOTH).report
    assert (report.heads, report.head_parameters) == (("fc",), 70)
    assert report.parameters - plain.parameters == 70
    assert "private classifiers: fc; 70 parameters added" in str(report).splitlines()
    assert "classifier" not in str(plain)


def test_each_resolution_has_a_classifier_under_the_name_of_the_file(net) -> None:
    keys = [key for key in net.state_dict() if key.startswith("fc")]
    assert keys == ["fc.weight", "fc.bias", *(f"fc.at.{r}.{name}" for r in (48, 32) for name in ("weight", "bias"))]
    assert net.other_private_tensors() == ["fc.weight", "fc.bias"]
    assert [net.at(r).fc for r in SIDES] == list(net.fc.sets)
    assert [type(net.at(r).fc) for r in SIDES] == [nn.Linear] * 3
    assert len({id(p) for p in net.parameters()}) == len(list(net.named_parameters(remove_duplicate=False)))


@pytest.mark.parametrize(("side", "shares"), [(56, (0.5, 0.5, 0)), (36, (0, 0.25, 0.75)), (90, (1, 0, 0))])
def test_between_two_sizes_it_is_the_linear_interpolation(net, side: int, shares: tuple[float, ...]) -> None:
    path = net.at(side)
    for name in ("weight", "bias"):
        values = [getattr(one, name).detach().numpy().astype(np.float64) for one in net.fc.sets]
        expected = sum(share * value for share, value in zip(shares, values, strict=True))
        np.testing.assert_allclose(getattr(path.fc, name).numpy(), expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(run(net, side), run(path, side))


def test_a_step_of_one_path_moves_its_classifier_alone(net) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    loss = run(net.at(48), 48).square().sum()
    loss.backward()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "fc" in name and parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    moved = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"fc.at.48.weight", "fc.at.48.bias"}


def test_a_plain_model_and_a_copy_keep_their_values(net) -> None:
    for side in (*SIDES, 40):
        plain = net.extract(side)
        assert plain.state_dict().keys() == net.at(64).state_dict().keys()
        assert torch.equal(run(plain, side), run(net, side))
        assert plain.fc.weight.requires_grad
    twin = copy.deepcopy(net)
    assert type(twin.fc) is SwitchableHead
    twin.fc.sets[1].weight.data.zero_()
    assert torch.equal(twin.at(48).fc.weight, torch.zeros(5, 6))
    assert net.at(48).fc.weight.any()


def test_a_new_classifier_is_private_too(write_all) -> None:
    net = write_all(make_switchable(create_model("test_resnet", num_classes=4), (64, 48), private=BOTH)).eval()
    net.reset_classifier(7)
    assert [tuple(one.weight.shape) for one in net.fc.sets] == [(7, 96)] * 2
    assert not any(p.any() for p in net.fc.parameters())
    assert net.source.new_classifier == ("fc.weight", "fc.bias")
    assert [run(net, side).shape for side in (64, 48, 56)] == [(2, 7)] * 3
    net.reset_classifier(0)
    assert (list(net.switchable_heads()), net.other_private_tensors()) == ([], [])
    assert run(net, 48).shape == (2, 96)


def test_what_the_source_calls_its_classifier_is_that_of_all_paths() -> None:
    net = make_switchable(create_model("test_resnet", num_classes=4), (64, 48), private=BOTH)
    assert net.get_classifier() is net.fc
    net.get_classifier().requires_grad_(False)
    assert not any(net.at(side).fc.weight.requires_grad for side in (64, 48))


def test_auxiliary_heads_and_convolutions_are_private(write_all) -> None:
    levit = make_switchable(create_model("levit_128s", num_classes=3), (96, 64), private=BOTH)
    assert levit.report.heads == ("head.linear", "head_dist.linear")
    convolution = create_model("torchvision/squeezenet1_1", num_classes=3)
    convolution.features[0] = nn.Sequential(convolution.features[0], nn.BatchNorm2d(64))
    net = write_all(make_switchable(convolution, (96, 64), private=BOTH)).eval()
    assert net.report.heads == ("classifier.1",)
    weights = [one.weight.detach().numpy() for one in net.get_submodule("classifier.1").sets]
    np.testing.assert_allclose(net.at(80).classifier[1].weight.numpy(), (weights[0] + weights[1]) / 2, atol=1e-6)


def test_a_swapped_classifier_shows_in_the_proof(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from rsconvert.surgery import conversion

    def swapped(*args: Any, **kwargs: Any) -> SwitchableModel:
        net = make(*args, **kwargs)
        net.at(48)._modules["fc"] = net.at(32)._modules["fc"]
        net._rs_note()
        return net

    make = conversion.assemble
    monkeypatch.setattr(conversion, "assemble", swapped)
    with pytest.raises(UnsupportedModelError, match=r"computes other values after conversion at \[48\]"):
        make_switchable(tiny(), SIDES, private=BOTH)


def test_a_graph_switches_the_classifier_too(net) -> None:
    graph = rsconvert.to_graph(net)
    for side in (*SIDES, 56, 40):
        torch.testing.assert_close(run(graph, side), run(net, side), rtol=1e-5, atol=1e-6)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.mix, self.fc = nn.Linear(6, 6), nn.Linear(6, 6)
        self.mix.weight = self.fc.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.mix(self.bn(self.conv(x)).mean((2, 3))))


def without_classifier(model: nn.Module) -> nn.Module:
    return nn.Sequential(model.conv1, model.bn1)


def with_hook(model: nn.Module) -> nn.Module:
    model.fc.register_forward_hook(lambda *_: None)
    return model


def with_norm(model: nn.Module) -> nn.Module:
    model.fc = parametrizations.weight_norm(model.fc)
    return model


def with_name(model: nn.Module) -> nn.Module:
    model.fc.at = 3
    return model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_classifier, "Sequential has no classifier to make private; a linear or convolutional layer"),
        (with_hook, "fc of Tiny has a hook"),
        (with_norm, "fc of Tiny holds other modules or buffers"),
        (with_name, "fc of Tiny has an attribute at"),
        (lambda _: Tied(), "fc of Tied shares its tensors with another layer; .* Leave head out of private"),
    ],
)
def test_what_can_not_have_copies_is_refused(tiny, change: Callable[[nn.Module], nn.Module], words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words) as caught:
        make_switchable(change(tiny()), SIDES, private=BOTH)
    assert "\n" not in str(caught.value)


def test_a_large_classifier_is_refused_with_its_cost_unless_told(tiny) -> None:
    """100 classes: 700 numbers, against 216 + 16 + 438 + 12 before it."""
    model = tiny(classes=100)
    with pytest.raises(ConfigError, match=r"2 more classifiers \(fc\) would add 1,400 parameters to the 1,382 of Tiny"):
        make_switchable(model, SIDES, private=BOTH)
    assert make_switchable(model, SIDES, private=BOTH, large_head=True).report.head_parameters == 1400


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"private": "bn,head"}, r'private names .bn,head.; bn and head are accepted\. .* \("bn", "head"\) in Python'),
        ({"private": ("bn", "stem")}, "private names 'stem'"),
        ({"large_head": True}, "large_head has no effect, because the classifier is shared"),
        ({"private": ("bn",), "large_head": True}, "large_head has no effect"),
    ],
)
def test_an_unusable_choice_is_refused(tiny, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_switchable(tiny(), SIDES, **options)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda net: net.fc.weight, "asked of a SwitchableHead, which has one per resolution"),
        (lambda net: net.fc(torch.zeros(1, 6)), "a SwitchableHead is run"),
        (lambda net: setattr(net, "fc", nn.Linear(6, 2)), "holds tensors of each resolution"),
        (lambda net: setattr(net.fc, "native", nn.Linear(6, 2)), "classifier set of 64 would become Linear"),
        (lambda net: net.fc.at.__delitem__("48"), "a layer of the same class and shapes"),
        (lambda net: net.fc.register_buffer("mask", torch.ones(5)), "set on a SwitchableHead"),
    ],
)
def test_what_can_not_reach_every_classifier_is_refused(net, use: Callable[[Any], object], words: str) -> None:
    before = run(net, 48)
    with pytest.raises((UnsupportedModelError, ResolutionError), match=words) as caught:
        use(net)
    assert isinstance(caught.value, RSConvertError)
    assert "\n" not in str(caught.value)
    assert torch.equal(run(net, 48), before)


def test_a_set_takes_another_layer_of_its_kind(net) -> None:
    new = nn.Linear(6, 5)
    net.fc.at["48"] = new
    assert net.at(48).fc is new
    assert torch.equal(net.state_dict()["fc.at.48.weight"], new.weight)
