"""Graph facts: call sites, producers, opaque modules; and one graph for all sizes, in which set weights are data."""

import copy

import numpy as np
import pytest
import timm
import torch
from torch import nn

from rsconvert.errors import TrainingError, UnsupportedModelError
from rsconvert.models import create_model
from rsconvert.surgery import SetWeights, interpolation_weights, make_switchable, to_graph
from rsconvert.surgery.graph import read_graph, trace


class Norm(nn.Module):
    """A convolution with a BatchNorm, behind a condition on values."""

    def __init__(self, breaks: bool) -> None:
        super().__init__()
        self.conv, self.bn, self.breaks = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), breaks

    def forward(self, x):
        if self.breaks and x.sum() > 1e9:
            x = -x
        return self.bn(self.conv(x))


class Strange(nn.Module):
    """Hands its child something that is no fx value."""

    def __init__(self) -> None:
        super().__init__()
        self.child, self.bn = nn.Identity(), nn.BatchNorm2d(3)

    def forward(self, x):
        self.child(object())
        return self.bn(x)


class Forgiving(nn.Module):
    """Swallows the failure of a child, then fails itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Norm(True), Norm(False)

    def forward(self, x):
        try:
            x = self.one(x)
        except torch.fx.proxy.TraceError:
            x = x + 1
        x = self.two(x)
        return x if x.sum() > 0 else -x


def test_call_sites_and_producers() -> None:
    bn = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), bn, nn.ReLU(), bn, nn.ReLU(), nn.BatchNorm2d(4))
    facts = read_graph(model)
    assert facts.calls == {"1": 2, "5": 1}
    assert facts.producers == {"1": None, "5": None}
    assert facts.opaque == {}


def test_a_linear_layer_produces_too() -> None:
    facts = read_graph(nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4)))
    assert facts.producers == {"2": "1"}


def test_resnet10t_pairs_every_batchnorm_with_its_convolution() -> None:
    facts = read_graph(timm.create_model("resnet10t"))
    assert facts.producers["layer1.0.bn1"] == "layer1.0.conv1"
    assert facts.producers["layer2.0.downsample.2"] == "layer2.0.downsample.1"
    assert all(facts.producers.values())
    assert set(facts.calls.values()) == {1}


def test_fused_activations_are_entered_and_their_norms_kept_whole() -> None:
    model = timm.create_model("test_efficientnet")
    facts = read_graph(model)
    assert set(facts.calls) == {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


def test_an_untraceable_module_is_opaque_and_the_rest_is_seen() -> None:
    facts = read_graph(nn.Sequential(Norm(False), nn.Sequential(Norm(True), Norm(False))))
    assert facts.calls == {"0.bn": 1, "1.1.bn": 1}
    assert list(facts.opaque) == ["1.0"]
    assert facts.opaque["1.0"].startswith("TraceError: ")


def test_an_untraceable_root_has_no_graph() -> None:
    graph, opaque = trace(Norm(True))
    assert graph is None
    assert list(opaque) == [""]
    assert read_graph(Norm(True)).calls == {}


def test_a_call_that_no_graph_can_hold_is_its_caller_s_affair() -> None:
    facts = read_graph(nn.Sequential(Strange(), Norm(False)))
    assert list(facts.opaque) == ["0"]
    assert facts.calls == {"1.bn": 1}


def test_a_swallowed_failure_does_not_stop_the_search() -> None:
    assert "" in read_graph(Forgiving()).opaque


def test_optional_arguments_take_their_defaults() -> None:
    class Optional(Norm):
        def forward(self, x, mask=None, flag: bool = False, size=(1, 2), *, scale: float = 2.0):
            x = super().forward(x)
            return {"out": x * scale if mask is None and not flag else x}

    graph, opaque = trace(Optional(False))
    assert opaque == {}
    assert [node.name for node in graph.nodes if node.op == "placeholder"] == ["x"]


@pytest.mark.parametrize("name", ["levit_128s", "test_resnet"])
def test_the_model_stays_as_it_was(name: str) -> None:
    model = timm.create_model(name).train()
    before, attributes = copy.deepcopy(model.state_dict()), set(vars(model))
    read_graph(model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert set(vars(model)) == attributes
    assert model.training
    assert not any("Proxy" in repr(vars(m).get("attention_bias_cache")) for m in model.modules())


RESOLUTIONS = (64, 48, 32)


@pytest.fixture(params=["tiny", "resnet10t", "mobilenetv3_small_050"])
def net(request, tiny, write_all):
    model = tiny() if request.param == "tiny" else timm.create_model(request.param, num_classes=4)
    return write_all(make_switchable(model, RESOLUTIONS)).eval()


def test_the_graph_agrees_with_the_network(net, image) -> None:
    graph = to_graph(net)
    with torch.no_grad():
        for resolution in RESOLUTIONS:
            assert torch.equal(graph(image(resolution)), net(image(resolution)))
        for resolution in (56, 40, 90, 25):
            torch.testing.assert_close(graph(image(resolution)), net(image(resolution)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(graph(image(32, 72)), net(image(32, 72)), rtol=1e-4, atol=1e-5)


def test_the_graph_shares_the_network_s_tensors(net, image) -> None:
    graph = to_graph(net)
    own = {id(t) for t in net.state_dict(keep_vars=True).values()}
    extra = {n for n, t in graph.state_dict(keep_vars=True).items() if id(t) not in own}
    assert extra == {"rsconvert_set_weights.resolutions"}
    with torch.no_grad():
        next(net.switchable_bns())[1].sets[1].bias.fill_(3)
        assert torch.equal(graph(image(48)), net(image(48)))


def test_the_weights_are_computed_once_from_the_image(net) -> None:
    graph = to_graph(net).graph
    (weights,) = [node for node in graph.nodes if node.target == "rsconvert_set_weights"]
    (image,) = weights.args
    assert image.op == "placeholder"
    assert len(weights.users) == len(list(net.switchable_bns()))


def test_train_mode_is_refused(tiny, image) -> None:
    graph = to_graph(make_switchable(tiny(), RESOLUTIONS)).train()
    with pytest.raises(TrainingError, match="eval mode only"):
        graph(image(64))


def test_the_network_keeps_its_mode_and_modules(tiny) -> None:
    net = make_switchable(tiny().train(), RESOLUTIONS)
    names = [name for name, _ in net.named_modules()]
    to_graph(net)
    assert net.training
    assert all(m.training for r in RESOLUTIONS for m in net.at(r).modules())
    assert [name for name, _ in net.named_modules()] == names


def test_an_exported_program_switches_by_itself(tiny, write_all, image) -> None:
    net = write_all(make_switchable(tiny(), RESOLUTIONS)).eval()
    height, width = torch.export.Dim("height", min=16, max=256), torch.export.Dim("width", min=16, max=256)
    program = torch.export.export(to_graph(net), (image(56),), dynamic_shapes=({2: height, 3: width},)).module()
    for shape in ((64, 64), (48, 48), (40, 40), (32, 72), (100, 100)):
        torch.testing.assert_close(program(image(*shape)), net(image(*shape)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("resolutions", [(224, 192, 160, 128, 96), (64, 32), (64,)])
def test_set_weights_are_the_interpolation_weights(resolutions) -> None:
    weights = SetWeights(resolutions)
    for side in (1, 31, 32, 47, 64, 96, 100, 143, 176, 224, 300):
        expected = interpolation_weights(side, resolutions)
        np.testing.assert_allclose(weights(torch.empty(1, 3, side, side)).numpy(), expected, atol=1e-6)
        if side in resolutions:
            assert tuple(weights(torch.empty(1, 3, side, side)).tolist()) == expected


def test_an_untraceable_model_is_refused() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(4)

        def forward(self, x):
            return self.bn(x) if x.sum() < 1e9 else x

    net = make_switchable(nn.Sequential(nn.Conv2d(3, 4, 1), Branch()), (64, 32))
    with pytest.raises(UnsupportedModelError, match=r"^1 can't be traced by torch.fx \(TraceError: .*\).*net\.at"):
        to_graph(net)


def test_keyword_calls_optional_arguments_and_dictionaries(image) -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x, mask=None):
            x = self.bn(input=self.conv(x))
            return {"out": x if mask is None else x * mask}

    net = make_switchable(Keyword(), (64, 32)).eval()
    assert torch.equal(to_graph(net)(image(32))["out"], net(image(32))["out"])


def test_one_shared_set_needs_no_weights(tiny, image) -> None:
    net = make_switchable(tiny(), RESOLUTIONS, private=False).eval()
    assert torch.equal(to_graph(net)(image(48)), net(image(48)))


def test_what_differs_by_more_than_batchnorm_modules_is_refused() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("var", torch.ones(3))

        def forward(self, x):
            return nn.functional.batch_norm(x, self.mean, self.var)

    with pytest.raises(UnsupportedModelError, match=r"the network has private 0\.mean; .* net\.at\(resolution\)"):
        to_graph(make_switchable(nn.Sequential(Functional()), (64, 32)))
    with pytest.raises(UnsupportedModelError, match="the network is built again for each resolution"):
        to_graph(make_switchable(create_model("levit_128s"), (96, 64)))
