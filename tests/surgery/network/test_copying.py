"""Copies against copy.deepcopy: the same values, kinds and references, new modules, empty caches."""

import copy
import functools
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.surgery.network.copying import copy_model, copy_modules, copy_structure, fresh, on_meta


class Woven(nn.Module):
    """References to modules and tensors in every kind of place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = self.first
        self.tied = nn.Conv2d(3, 4, 3)
        self.tied.weight = self.first.weight
        self.ahead = [self.first, self.first.weight]
        self.bound = self.run
        self.part = functools.partial(self.run, 1)
        self.constant = torch.ones(2)
        self.sizes = {"a": (1, [2, 3])}
        self.pair = (self.tied, "x")
        self.absent = None
        self.register_module("nothing", None)
        self.mask_cache = {"a": torch.ones(1)}
        self.first.register_forward_hook(self.hook)

    def run(self, x: Any) -> Any:
        return x

    def hook(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output + self.constant.sum()

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(x) + self.second(x)


class Numbered(nn.Module):
    """A class that says how it is copied."""

    def __init__(self, copies: int = 0) -> None:
        super().__init__()
        self.copies = copies
        self.child = nn.ReLU()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Numbered":
        return Numbered(self.copies + 1)


class Stateful(nn.Module):
    """A class that says what of it is copied."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 7

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "seen": 0, "told": "out"}  # type: ignore[no-untyped-call]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "told": f"{state['told']} and in"})


def test_references_lead_into_the_copy() -> None:
    model = Woven()
    new = copy_modules(model, {})
    assert new.first is new.second is new.ahead[0] is not model.first
    assert new.first.weight is new.tied.weight is new.ahead[1] is not model.first.weight
    assert new.bound.__self__ is new
    assert new.part.func.__self__ is new
    assert new.pair == (new.tied, "x")
    (hook,) = new.first._forward_hooks.values()
    assert hook.__self__ is new
    assert new.constant is not model.constant
    assert new.sizes == model.sizes
    assert new.sizes is not model.sizes
    assert new.sizes["a"][1] is not model.sizes["a"][1]
    assert new.nothing is new.absent is None
    assert (len(model.mask_cache), len(new.mask_cache)) == (1, 0)
    assert new._backward_hooks is not model._backward_hooks
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(new(x), model(x))


def test_what_the_memo_holds_takes_the_place() -> None:
    model = Woven()
    weight, tied = nn.Parameter(torch.zeros(4, 3, 3, 3)), nn.Conv2d(3, 4, 3)
    new = copy_modules(model, {id(model.first.weight): weight, id(model.tied): tied})
    assert new.first.weight is new.ahead[1] is weight
    assert new.tied is new.pair[0] is tied
    assert copy_modules(model, {id(model): tied}) is tied


def test_the_memo_tells_the_copies() -> None:
    model, memo = Woven(), {}
    new = copy_modules(model, memo)
    assert memo[id(model)] is new
    assert memo[id(model.first)] is new.first


def test_a_class_that_says_how_it_is_copied_is_heard() -> None:
    model = nn.Sequential(Numbered(), Stateful())
    first, second = copy_modules(model, {})
    assert first.copies == 1
    assert (second.seen, second.told) == (0, "out and in")
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    again = copy_modules(nn.Sequential(graph), {})[0]
    assert type(again).__name__ == type(graph).__name__
    assert again.graph is not graph.graph
    assert again.get_submodule("0") is not graph.get_submodule("0")


@pytest.mark.parametrize("name", ["test_efficientnet", "levit_128s", "mobilenetv4_conv_small", "fasternet_t0"])
def test_models_are_copied_as_deepcopy_does(name: str) -> None:
    same_as_deepcopy(timm.create_model(name, num_classes=3).eval())


def test_models_of_torchvision_too() -> None:
    same_as_deepcopy(torchvision.models.resnet18(num_classes=3).eval())


def same_as_deepcopy(model: nn.Module) -> None:
    mine, theirs = copy_modules(model, {}), copy.deepcopy(model, fresh(model))
    assert repr(mine) == repr(theirs)
    old = {id(thing) for thing in (*model.modules(), *model.parameters(), *model.buffers())}
    assert old.isdisjoint(id(thing) for thing in (*mine.modules(), *mine.parameters(), *mine.buffers()))
    for one, other in zip(mine.modules(), theirs.modules(), strict=True):
        assert type(one) is type(other)
        assert {key: type(value) for key, value in vars(one).items()} == {k: type(v) for k, v in vars(other).items()}
        assert [key for key, value in vars(one).items() if value is vars(other)[key] and isinstance(value, dict)] == []
    state, expected = mine.state_dict(), theirs.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    side = 224 if "levit" in type(model).__name__.lower() else 64
    x = torch.rand(1, 3, side, side)
    assert torch.equal(mine(x), theirs(x))


def held(model: nn.Module) -> list[Tensor]:
    return list(model.state_dict(keep_vars=True).values())


def test_a_structure_shares_tensors_and_hooks_and_no_module() -> None:
    model, seen = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), []
    new = copy_structure(model)
    assert {id(module) for module in new.modules()}.isdisjoint(id(module) for module in model.modules())
    assert all(a is b for a, b in zip(held(new), held(model), strict=True))
    model[0].register_forward_hook(lambda *_: seen.append("later"))
    model.half()
    assert new[1].running_mean.dtype == torch.float16
    new.float()(torch.ones(1, 3, 8, 8))
    assert seen == ["later"]
    bn = nn.BatchNorm2d(4)
    assert copy_structure(model, {id(model[1]): bn})[1] is bn


def test_a_copy_on_meta_has_kinds_and_shapes_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model[0].weight.requires_grad_(False)
    new = on_meta(model)
    assert all(tensor.is_meta for tensor in new.state_dict().values())
    assert {k: t.shape for k, t in new.state_dict().items()} == {k: t.shape for k, t in model.state_dict().items()}
    assert [p.requires_grad for p in new.parameters()] == [False, True, True, True]
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


def test_what_can_not_be_copied_is_refused() -> None:
    model = nn.Linear(2, 2)
    model.kept = (model.weight * 2,)
    with pytest.raises(UnsupportedModelError, match=r"^Linear can't be copied \(.*Remove computed tensors and open"):
        copy_model(model)
    twin = copy_structure(model)
    assert torch.equal(twin.kept[0], model.kept[0])
    assert twin.kept[0].grad_fn is None


class Keeper(nn.Linear):
    """Keeps its last output, and says what makes another one of its class."""

    def __getnewargs__(self) -> tuple[()]:
        return ()


@pytest.mark.parametrize("kind", [nn.Linear, Keeper])
def test_what_is_kept_of_a_forward_is_copied_without_its_graph_where_that_is_asked(kind: type[nn.Linear]) -> None:
    model = nn.Sequential(kind(2, 2), kind(2, 2))
    output = model[0](torch.ones(1, 2))
    model[0].kept, model[1].kept, own = output, {"last": [output]}, torch.zeros(1, 2)
    new = copy_modules(model, {}, detach=True)
    assert new[0].kept is new[1].kept["last"][0] is not output
    assert torch.equal(new[0].kept, output)
    assert new[0].kept.grad_fn is None
    assert copy_modules(model, {id(output): own}, detach=True)[0].kept is own
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy_modules(model, {})
