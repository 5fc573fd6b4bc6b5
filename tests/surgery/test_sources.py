"""Sources of every kind and state: graphs, scripts, kept activations, names that clash, inference mode."""

import copy

import pytest
import torch
import torch.nn.utils.prune as prune
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor

import rsconvert
from rsconvert.errors import UnsupportedModelError
from rsconvert.models import create_model
from rsconvert.surgery import SwitchableModel, make_switchable

RESOLUTIONS = (64, 48)


def run(model: nn.Module, resolution: int = 48) -> Tensor:
    return model(torch.randn(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(0)))


class Around(nn.Module):
    """A module of Python around a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = fx.symbolic_trace(create_model("resnet10t", num_classes=4)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x))


class Keeps(nn.Module):
    """Keeps what its stage gave, as models do for a later loss."""

    def __init__(self) -> None:
        super().__init__()
        self.stage, self.fc = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.stage(x)
        self.both = [self.features, self.features.mean((2, 3))]
        return self.fc(self.both[1])


class Names(nn.Module):
    """Every name that the network has for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.report, self.resolutions = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.at, self.native = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), nn.ReLU()
        self.build, self.private, self._paths, self._twins, self.measured = (nn.Identity() for _ in range(5))
        self.modules, self.alpha, self.extract = [], 0.5, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.native(self.at(self.resolutions(self.report(self.source(x))))).mean((2, 3)) * self.alpha


def graph_source() -> nn.Module:
    return fx.symbolic_trace(create_model("resnet10t", num_classes=4))


def features_source() -> nn.Module:
    return create_feature_extractor(torchvision.models.resnet18(), {"layer2": "out"})


SOURCES = {"graph": graph_source, "around a graph": Around, "keeps": Keeps, "names": Names}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("source", [*SOURCES.values(), features_source], ids=[*SOURCES, "features"])
def test_mode_dtype_and_copies(source, training: bool) -> None:
    model = source().train(training)
    net = make_switchable(model, RESOLUTIONS)
    for made in (net, copy.deepcopy(net), *(net.at(r) for r in RESOLUTIONS), net.extract(48)):
        assert made.training is training
    net.double()
    assert {t.dtype for t in net.at(48).state_dict().values() if t.is_floating_point()} == {torch.float64}
    net.float().eval()
    wanted, twin = run(net), copy.deepcopy(net)
    for made in (twin, net.at(48), twin.at(48), net.extract(48)):
        found = run(made)
        assert all(map(torch.equal, _leaves(found), _leaves(wanted)))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert all(map(torch.equal, _leaves(run(net)), _leaves(wanted)))


def _leaves(output: object) -> list[Tensor]:
    return list(output.values()) if isinstance(output, dict) else [output]


def test_the_two_graphs_of_a_feature_extractor_follow_the_mode() -> None:
    source = features_source().eval()
    net = make_switchable(source, RESOLUTIONS)
    net.train()
    assert not source.training
    assert source.graph is source.eval_graph
    assert all(net.at(r).graph is net.at(r).train_graph for r in RESOLUTIONS)


def test_kept_activations_are_copied_without_their_graph() -> None:
    net = make_switchable(Keeps(), RESOLUTIONS).train()
    run(net).sum().backward()
    assert net.at(48).features.grad_fn is not None
    for made in (copy.deepcopy(net), net.extract(48), net.skeleton()):
        assert getattr(made.at(48) if isinstance(made, SwitchableModel) else made, "both", [None])[-1] is not None
    net.eval()
    assert torch.equal(run(copy.deepcopy(net)), run(net))
    assert run(net, 56).shape == (2, 2)
    model = Keeps()
    run(model).sum().backward()
    with pytest.raises(UnsupportedModelError, match=r"Keeps can't be copied .*Remove computed tensors"):
        make_switchable(model, RESOLUTIONS)


def test_names_of_the_network_itself_stay_the_source_s_inside(tmp_path) -> None:
    net = make_switchable(Names(), RESOLUTIONS).eval()
    assert (net.resolutions, net.private, net.native, net.build) == (RESOLUTIONS, True, 64, None)
    assert len(net.report.batchnorms) == 2
    assert {"source", "report", "at", "native"} <= dict(net.named_children()).keys()
    with pytest.warns(rsconvert.NamelessModelWarning):
        rsconvert.save(net, tmp_path / "net.safetensors")
    again = rsconvert.load(tmp_path / "net.safetensors", model=Names())
    assert torch.equal(run(again), run(net))
    net.train()
    run(net).sum().backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit.script:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning", "ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("compiled", [torch.jit.script, lambda model: torch.jit.trace(model, torch.ones(1, 3, 64, 64))])
def test_a_scripted_model_is_refused(compiled) -> None:
    model = compiled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval())
    with pytest.raises(UnsupportedModelError, match=r"of torch\.jit, .* Convert the model before it is scripted\."):
        make_switchable(model, RESOLUTIONS)


def test_a_pruned_model_is_refused_until_it_is_plain() -> None:
    model = create_model("resnet10t")
    prune.l1_unstructured(model.layer1[0].conv1, "weight", 0.5)
    with pytest.raises(UnsupportedModelError, match=r"layer1\.0\.conv1 is pruned, .*prune\.remove first"):
        make_switchable(model, RESOLUTIONS)
    prune.remove(model.layer1[0].conv1, "weight")
    assert all(make_switchable(model, RESOLUTIONS).report.exact.values())


def test_what_is_made_in_inference_mode_can_be_trained(tmp_path) -> None:
    with torch.inference_mode():
        net = make_switchable(create_model("resnet10t", num_classes=4), RESOLUTIONS)
        rsconvert.save(net, tmp_path / "net.safetensors")
        loaded = rsconvert.load(tmp_path / "net.safetensors")
        plain = net.extract(56)
    for model in (net, loaded, plain):
        run(model.train()).sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()


def test_assigned_root_parameters_are_those_of_every_path() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.scale = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.bn(self.conv(x)).mean((2, 3)) * self.scale

    net = make_switchable(Root(), RESOLUTIONS).eval()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()} | {"scale": torch.full((1,), 3.0)}
    net.load_state_dict(state, assign=True)
    net.scale = nn.Parameter(net.scale.detach() * 2)
    assert all(net.at(r).scale is net.scale for r in RESOLUTIONS)
    assert run(net).equal(run(net.at(48)))
    assert net.at(48).scale.item() == 6.0
