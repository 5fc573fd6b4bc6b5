"""The graph facts: call sites, producers, opaque modules; the model stays as it was."""

import copy

import pytest
import timm
import torch
from torch import nn

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
