"""Paths: which modules each has for itself, and what they share with the network."""

import copy

import pytest
import torch
from torch import nn

from rsconvert.errors import ResolutionError
from rsconvert.surgery import SwitchableBN, SwitchableModel, make_switchable
from rsconvert.surgery.network.parts import Part
from rsconvert.surgery.network.paths import divided, make_path, shown_children, snapshot


class Nested(nn.Module):
    """A stage with a BatchNorm, one without, and one that refers to the first without holding it."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.plain = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.watching = nn.Identity()
        self.watching.others = [self.stage]
        self.register_module("absent", None)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.watching(self.plain(self.stage(x))).mean((2, 3)))


def names(model: nn.Module, ids: set[int]) -> set[str]:
    return {name for name, module in model.named_modules() if id(module) in ids}


@pytest.fixture
def net(write_all) -> SwitchableModel:
    return write_all(make_switchable(Nested(), (64, 48))).eval()


def test_a_path_needs_what_is_private_and_all_that_holds_or_refers_to_it() -> None:
    model = Nested()
    assert divided(model, set()) == set()
    assert names(model, divided(model, {id(model.stage[1])})) == {"", "stage", "stage.1", "watching"}


def test_a_module_of_other_settings_elsewhere_is_divided() -> None:
    model, other = Nested(), Nested()
    assert names(model, divided(model, set(), [other])) == {""}, "a class of no library may compute anything"
    other.plain[0] = nn.Conv2d(4, 4, 1, stride=2)
    assert names(model, divided(model, set(), [other])) == {"", "plain", "plain.0"}


class Owner:
    def hook(self, *_: object) -> None: ...


def test_a_hook_of_an_object_divides_its_module() -> None:
    model = Nested()
    model.plain[0].register_forward_hook(lambda *_: None)
    assert divided(model, set()) == set()
    model.plain[1].register_forward_hook(Owner().hook)
    assert names(model, divided(model, set())) == {"", "plain", "plain.1"}


def test_the_shown_tree_has_a_part_for_what_is_divided_and_the_module_itself_elsewhere() -> None:
    model = Nested()
    bn, layer = model.stage[1], SwitchableBN(model.stage[1], (64, 48))
    children = shown_children(model, divided(model, {id(bn)}), {id(bn): layer}, {})
    assert list(children) == list(model._modules)
    assert isinstance(children["stage"], Part)
    assert children["stage"]._rs_twins == [model.stage]
    assert children["stage"]._modules == {"0": model.stage[0], "1": layer, "2": model.stage[2]}
    assert (children["plain"], children["fc"], children["absent"]) == (model.plain, model.fc, None)


def test_live_paths_share_all_modules_but_the_divided_ones(net) -> None:
    large, small = net.at(64), net.at(48)
    assert large.plain is small.plain is net.plain
    assert large.stage is not small.stage
    assert large.stage[0] is small.stage[0]
    assert list(net.stage._rs_twins) == [large.stage, small.stage]
    assert small.watching.others == [small.stage]
    assert [id(p) for p in large.fc.parameters()] == [id(p) for p in small.fc.parameters()]


def test_a_path_of_its_own_has_new_modules_around_the_tensors_of_the_network(net) -> None:
    path = make_path(net, net.at(64), 56, net.resolutions)
    assert {id(m) for m in path.modules()}.isdisjoint(id(m) for m in net.running_modules())
    assert path.fc.weight is net.fc.weight
    assert path.fc._parameters is net.fc._parameters
    expected = (net.at(64).stage[1].weight + net.at(48).stage[1].weight) / 2
    torch.testing.assert_close(path.stage[1].weight, expected)
    assert path.watching.others == [path.stage]
    path.train()
    assert not make_path(net.train(), net.at(64), 56, net.resolutions).training


def test_it_takes_the_hooks_that_all_paths_have(net) -> None:
    seen = []
    net.fc.register_forward_hook(lambda *_: seen.append("shared"))
    net.stage.register_forward_hook(lambda *_: seen.append("all"))
    net.at(48).stage.register_forward_hook(lambda *_: seen.append("one"))
    snapshot(net, net.at(64), 56, net.resolutions)(torch.ones(1, 3, 56, 56))
    assert seen == ["all", "shared"]


def test_its_own_hooks_stay_there(net) -> None:
    seen, path = [], snapshot(net, net.at(64), 56, net.resolutions)
    for part in path.modules():
        part.register_forward_hook(lambda *_: seen.append("path"))
    net.at(64)(torch.ones(1, 3, 64, 64))
    assert seen == []
    path(torch.ones(1, 3, 56, 56))
    assert len(seen) == len(list(path.modules()))


def test_only_the_snapshot_refuses_train_mode(net) -> None:
    path, own = snapshot(net, net.at(64), 56, net.resolutions), make_path(net, net.at(64), 56, net.resolutions)
    image = torch.ones(2, 3, 56, 56)
    assert torch.equal(path(image), own(image))
    with pytest.raises(ResolutionError, match="an interpolated path is in train mode"):
        path.train()(image)
    assert own.train()(image).requires_grad
    assert not any(net.at(r)._forward_pre_hooks for r in net.resolutions)
    assert copy.deepcopy(path)._forward_pre_hooks
