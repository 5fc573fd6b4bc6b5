"""Copies of modules: what copy.deepcopy gives with empty caches, in a fraction of its time."""

import copy
import copyreg
import functools
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

__all__ = [
    "ATOMS",
    "CONTAINERS",
    "HOOKS",
    "copy_modules",
    "fresh",
    "has_bound_hooks",
    "hook_registries",
    "kept_outputs",
    "references",
]

ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, type})
CONTAINERS = frozenset({dict, list, OrderedDict, set})
_MAPPINGS = CONTAINERS - {list}
_REGISTRIES = frozenset({"_modules", "_parameters", "_buffers"})
# What runs with a forward or a backward pass of a module.
HOOKS = (
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs"),
    *("_forward_hooks_always_called", "_backward_pre_hooks", "_backward_hooks"),
)
_SEQUENCES = frozenset({list, tuple})
_HOLDERS = CONTAINERS | _SEQUENCES
_OWN_WAYS = ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__slots__")


def copy_modules(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Return a copy of a model, with what ``memo`` holds in the place of the objects of these ids.

    Most attributes of a module are numbers and empty containers for hooks, on which copy.deepcopy spends its time.
    Below a module that the memo holds nothing is visited; a class that says how it is copied is heard.

    Args:
        memo: as for copy.deepcopy; takes up the id of each module that was copied, with its copy.
    """
    shells: list[tuple[nn.Module, Any]] = []
    _make_shells(model, memo, shells)
    shells.reverse()  # what is below a module is whole before it
    states = [
        cast(Any, module).__getstate__() for module, _ in shells
    ]  # kept until the end: the memo tells objects by their id
    for (_, shell), state in zip(shells, states, strict=True):
        copied = _copied(state, memo) if type(state) is dict else copy.deepcopy(state, memo)
        if type(shell).__setstate__ is nn.Module.__setstate__:
            shell.__dict__.update(copied)  # what nn.Module does besides is for files of old versions
        else:
            shell.__setstate__(copied)
    for module, shell in shells:
        if isinstance(module, fx.GraphModule):
            _compile_graph(module, shell)
    return copy.deepcopy(model, memo)


def hook_registries(module: nn.Module) -> Iterator[dict[int, Any]]:
    """Yield the dictionaries that hold what a forward or backward pass of a module calls besides it."""
    yield from (vars(module)[name] for name in HOOKS if name in vars(module))


def has_bound_hooks(module: nn.Module) -> bool:
    """Tell whether a hook of a module belongs to some object, as a method of it, or holds a module."""
    hooks = [hook for registry in hook_registries(module) for hook in registry.values()]
    return any(_is_bound(hook) or any(references(hook)) for hook in hooks)


def _is_bound(hook: Any) -> bool:
    return hasattr(hook.func if isinstance(hook, functools.partial) else hook, "__self__")


def references(value: Any) -> Iterator[nn.Module]:
    """Yield the modules that a value holds or is bound to: a list of them, a method, a partial function."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, list | tuple | set):
        yield from (module for element in value for module in references(element))
    elif isinstance(value, dict):
        yield from references(list(value.values()))
    elif isinstance(value, functools.partial):
        yield from references([value.func, *value.args, *value.keywords.values()])
    elif isinstance(getattr(value, "__self__", None), nn.Module):
        yield value.__self__


def fresh(model: nn.Module) -> dict[int, Any]:
    """Return a deepcopy memo that starts empty containers anew, among them caches such as ``attention_bias_cache``.

    A cache may hold tensors of a graph, which can't be copied, or of other values than the copy's.
    """
    memo: dict[int, Any] = {}
    for module in nn.Module.modules(model):
        for name, value in vars(module).items():
            if type(value) in _MAPPINGS and (not value or name.endswith("_cache")):
                memo[id(value)] = type(value)()
    return memo


def kept_outputs(model: nn.Module) -> dict[int, Any]:
    """Return a deepcopy memo for what modules keep of their last forward: copies of tensors without their graph."""
    memo: dict[int, Any] = {}
    for module in nn.Module.modules(model):
        for name, value in vars(module).items():
            kind = type(value)
            if kind is Tensor or (kind in _HOLDERS and value and name not in _REGISTRIES):
                leaves = tree_leaves(value)
                memo |= {id(t): t.detach().clone() for t in leaves if isinstance(t, Tensor) and not t.is_leaf}
    return memo


def _make_shells(module: nn.Module, memo: dict[int, Any], shells: list[tuple[nn.Module, Any]]) -> None:
    """Make the new modules before their contents, so that a reference from anywhere finds them."""
    if id(module) in memo:
        return
    graph = isinstance(module, fx.GraphModule)
    if not graph and not _is_plain(type(module)):  # type: ignore[arg-type]  # mypy takes modules for unhashable
        memo.update({key: value for key, value in fresh(module).items() if key not in memo})
        return
    # A GraphModule's forward belongs to a class of its own.
    kind: Any = fx.GraphModule if graph else object
    memo[id(module)] = shell = kind.__new__(type(module))
    shells.append((module, shell))
    for child in module._modules.values():
        if child is not None:
            _make_shells(child, memo, shells)


def _copied(state: dict[str, Any], memo: dict[int, Any]) -> dict[str, Any]:
    new = dict(state)
    for name, value in state.items():
        kind = type(value)
        if kind in ATOMS:
            continue
        key = id(value)
        if key in memo:
            new[name] = memo[key]
        elif kind in _MAPPINGS and (not value or name.endswith("_cache")):
            new[name] = memo[key] = kind()
        elif kind is dict and name in _REGISTRIES:
            new[name] = memo[key] = {own: _registered(entry, memo) for own, entry in value.items()}
        elif kind not in _SEQUENCES or not ATOMS.issuperset(map(type, value)):
            new[name] = copy.deepcopy(value, memo)
        elif kind is list:
            new[name] = memo[key] = value.copy()
    return new


def _compile_graph(module: fx.GraphModule, shell: Any) -> None:
    """Give a copy its forward; neither the mode nor the hooks of ``copy.deepcopy``, which starts them anew."""
    type(shell).__name__ = type(module).__name__
    shell._graph.owning_module = shell
    shell.recompile()


def _registered(entry: object, memo: dict[int, Any]) -> Any:
    key = id(entry)
    return memo[key] if key in memo else copy.deepcopy(entry, memo)


@functools.cache
def _is_plain(kind: type) -> bool:
    """Tell whether a module of this class is made by copy.deepcopy out of its state and nothing else."""
    makers = ("__new__", "__reduce__", "__reduce_ex__")
    standard = all(getattr(kind, name) is getattr(object, name) for name in makers)
    told = kind in copyreg.dispatch_table or any(hasattr(kind, name) for name in _OWN_WAYS)
    return standard and not told
