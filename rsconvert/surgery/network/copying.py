"""Copies of models: what copy.deepcopy gives with empty caches, in a fraction of its time."""

import copy
import copyreg
import functools
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from rsconvert.errors import UnsupportedModelError, first_line

__all__ = [
    "ATOMS",
    "CONTAINERS",
    "HOOKS",
    "copy_all",
    "copy_model",
    "copy_modules",
    "copy_structure",
    "fresh",
    "has_bound_hooks",
    "hook_registries",
    "on_meta",
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
_OWN_WAYS = ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__slots__")


def copy_model(model: nn.Module, memo: Mapping[int, Any] | None = None) -> nn.Module:
    """Return an independent copy, with what ``memo`` holds in the place of the objects of these ids.

    Raises:
        UnsupportedModelError: the model can't be copied.
    """
    try:
        return copy_modules(model, dict(memo or {}))
    except (RuntimeError, TypeError) as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} can't be copied ({first_line(error)}); a model that "
            "copy.deepcopy takes is needed. Remove computed tensors and open handles from its attributes."
        ) from error


def copy_structure(model: nn.Module, memo: Mapping[int, Any] | None = None) -> nn.Module:
    """Return a copy whose modules are new and whose tensors and hooks, also later ones, are the model's."""
    shared: list[Any] = []
    for module in nn.Module.modules(model):
        shared += [module._parameters, module._buffers, module._non_persistent_buffers_set]
        shared += [*module._parameters.values(), *module._buffers.values()]
        shared += [] if has_bound_hooks(module) else hook_registries(module)
    return copy_modules(model, {**{id(value): value for value in shared}, **(memo or {})}, detach=True)


def on_meta(model: nn.Module) -> nn.Module:
    """Return a copy without data."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy_model(model, memo)


def copy_modules(model: nn.Module, memo: dict[int, Any], *, detach: bool = False) -> nn.Module:
    """Return a copy of a model, with what ``memo`` holds in the place of the objects of these ids.

    Most attributes of a module are numbers and empty containers for hooks, on which copy.deepcopy spends its time.
    Modules below one that the memo holds are not visited; a class that defines how it is copied is copied that way.

    Args:
        memo: as for copy.deepcopy; receives the id of each copied module, with its copy.
        detach: copy what modules keep of their last forward without its graph; copy.deepcopy refuses such tensors.
    """
    return copy_all([model], memo, detach=detach)[0]


def copy_all(models: Sequence[nn.Module], memo: dict[int, Any], *, detach: bool = False) -> list[nn.Module]:
    """Return what `copy_modules` does of several models, under one memo."""
    shells: list[tuple[nn.Module, Any]] = []
    for model in models:
        _make_shells(model, memo, shells, detach)
    shells.reverse()  # a module's children are complete before it
    # Kept until the end: the memo knows objects by their id.
    states = [cast(Any, module).__getstate__() for module, _ in shells]
    for (_, shell), state in zip(shells, states, strict=True):
        copied = _copied(state, memo, detach) if type(state) is dict else copy.deepcopy(state, memo)
        if type(shell).__setstate__ is nn.Module.__setstate__:
            object.__setattr__(shell, "__dict__", copied)  # the rest of nn.Module's is for files of old versions
        else:
            shell.__setstate__(copied)
    for module, shell in shells:
        if isinstance(module, fx.GraphModule):  # its mode and hooks are kept; copy.deepcopy would start them anew
            type(shell).__name__ = type(module).__name__
            shell._graph.owning_module = shell
            shell.recompile()
    return [copy.deepcopy(model, memo) for model in models]


def hook_registries(module: nn.Module) -> Iterator[dict[int, Any]]:
    """Yield the dictionaries of the hooks that run with a forward or backward pass of a module."""
    yield from (vars(module)[name] for name in HOOKS if name in vars(module))


def has_bound_hooks(module: nn.Module) -> bool:
    """Return whether a hook of a module is a method of some object, or holds a module."""
    hooks = [hook for registry in hook_registries(module) for hook in registry.values()]
    functions = [hook.func if isinstance(hook, functools.partial) else hook for hook in hooks]
    return any(hasattr(function, "__self__") for function in functions) or any(references(hooks))


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
        memo |= {id(value): type(value)() for name, value in vars(module).items() if _starts_anew(name, value)}
    return memo


def _starts_anew(name: str, value: Any) -> bool:
    return type(value) in _MAPPINGS and (not value or name.endswith("_cache"))


def _make_shells(module: nn.Module, memo: dict[int, Any], shells: list[tuple[nn.Module, Any]], detach: bool) -> None:
    """Make the new modules before their contents, so that a reference from anywhere finds them."""
    if id(module) in memo:
        return
    graph = isinstance(module, fx.GraphModule)
    if not graph and not _is_plain(type(module)):  # type: ignore[arg-type]  # mypy takes modules for unhashable
        kept = [_detached(vars(inner), memo) for inner in nn.Module.modules(module)] if detach else []
        for values in (fresh(module), *kept):
            memo.update({key: value for key, value in values.items() if key not in memo})
        return
    # A GraphModule's forward belongs to a class of its own.
    kind: Any = fx.GraphModule if graph else object
    memo[id(module)] = shell = kind.__new__(type(module))
    shells.append((module, shell))
    for child in module._modules.values():
        if child is not None:
            _make_shells(child, memo, shells, detach)


def _copied(state: dict[str, Any], memo: dict[int, Any], detach: bool) -> dict[str, Any]:
    new = state.copy()
    for name, value in state.items():
        kind = type(value)
        if kind in ATOMS or (kind is tuple and ATOMS.issuperset(map(type, value))):
            continue
        key = id(value)
        if key in memo:
            new[name] = memo[key]
        elif kind in _MAPPINGS and (not value or name.endswith("_cache")):
            new[name] = memo[key] = kind()
        elif kind is dict and name in _REGISTRIES:
            new[name] = memo[key] = {
                own: memo[id(e)] if id(e) in memo else copy.deepcopy(e, memo) for own, e in value.items()
            }
        elif kind is list and ATOMS.issuperset(map(type, value)):
            new[name] = memo[key] = value.copy()
        else:
            if detach:
                memo.update(_detached(value, memo))
            new[name] = copy.deepcopy(value, memo)
    return new


def _detached(value: Any, memo: Mapping[int, Any]) -> dict[int, Any]:
    """Return a deepcopy memo for tensors that a module keeps of its last forward: copies without their graph."""
    kept = (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and not leaf.is_leaf)
    return {id(tensor): tensor.detach().clone() for tensor in kept if id(tensor) not in memo}


@functools.cache
def _is_plain(kind: type) -> bool:
    """Return whether copy.deepcopy makes a module of this class from its state and nothing else."""
    makers = ("__new__", "__reduce__", "__reduce_ex__")
    standard = all(getattr(kind, name) is getattr(object, name) for name in makers)
    return standard and kind not in copyreg.dispatch_table and not any(hasattr(kind, name) for name in _OWN_WAYS)
