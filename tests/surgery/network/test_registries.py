"""Registries for several modules: a change is asked for, then made in all of them."""

from collections import OrderedDict

import pytest
from torch import nn

from rsconvert.surgery.network.registries import Children, Handles, Hooks


def test_children_are_asked_before_every_change() -> None:
    seen = []

    def change(name: str, child: nn.Module | None) -> None:
        if name == "fixed":
            raise ValueError(name)
        seen.append((name, type(child).__name__))

    children = Children({"fixed": nn.ReLU(), "a": nn.ReLU()}, change)
    children.update(a=nn.GELU())
    children |= {"b": None}
    children.setdefault("c", nn.Identity())
    assert type(children.pop("a")) is nn.GELU
    assert seen == [("a", "GELU"), ("b", "NoneType"), ("c", "Identity"), ("a", "Module")]
    for attempt in (lambda: children.pop("fixed"), lambda: children.update(fixed=None), children.clear):
        with pytest.raises(ValueError, match="fixed"):
            attempt()
    assert type(children["fixed"]) is nn.ReLU


def test_hooks_in_common_change_in_all_registries() -> None:
    one, two = OrderedDict({1: "a", 2: "own"}), OrderedDict({5: "a"})
    hooks = Hooks({1: "a"}, [one, two])
    hooks[7] = "b"
    assert (one, two) == ({1: "a", 2: "own", 7: "b"}, {5: "a", 7: "b"})
    del hooks[1]
    assert (hooks, one, two) == ({7: "b"}, {2: "own", 7: "b"}, {7: "b"})
    hooks.clear()
    assert (one, two) == ({}, {})


def test_hooks_go_by_what_they_are_not_by_their_number() -> None:
    one, two = OrderedDict({1: "a", 2: "own"}), OrderedDict({5: "a", 6: "a"})
    hooks = Hooks({1: "a"}, [one, two])
    assert hooks.pop(1) == "a"
    assert (hooks, one, two) == ({}, {2: "own"}, {})


def test_one_handle_removes_what_several_hold() -> None:
    modules = [nn.ReLU(), nn.ReLU()]
    with Handles(module.register_forward_hook(print) for module in modules):
        assert [len(module._forward_hooks) for module in modules] == [1, 1]
    assert [len(module._forward_hooks) for module in modules] == [0, 0]
