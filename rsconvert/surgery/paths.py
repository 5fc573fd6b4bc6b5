"""Paths: copies of a network's modules around its tensors, one for each resolution."""

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.surgery.bn import SwitchableBN
from rsconvert.surgery.private import private_owners, tensors_at
from rsconvert.zoo.building import first_line

__all__ = ["clear_caches", "copy_model", "copy_structure", "fresh", "make_path", "on_meta", "relink", "snapshot"]


def copy_model(model: nn.Module, memo: Mapping[int, Any] | None = None) -> nn.Module:
    """Return an independent copy, with what ``memo`` holds in the place of the objects of these ids.

    Raises:
        UnsupportedModelError: the model can't be copied.
    """
    try:
        return copy.deepcopy(model, {**fresh(model), **(memo or {})})
    except (RuntimeError, TypeError) as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} can't be copied ({first_line(error)}); a model that "
            "copy.deepcopy takes is needed. Remove computed tensors and open handles from its attributes."
        ) from error


def copy_structure(model: nn.Module) -> nn.Module:
    """Return a copy whose modules are new and whose tensors are the model's."""
    return copy.deepcopy(model, fresh(model) | _shared(model, model))


def on_meta(model: nn.Module) -> nn.Module:
    """Return a copy without data."""
    memo: dict[int, Any] = {id(t): _empty(t) for t in (*model.parameters(), *model.buffers())}
    return copy_model(model, memo)


def make_path(skeleton: nn.Module, built: nn.Module, resolution: int, resolutions: Sequence[int]) -> nn.Module:
    """Return the modules of ``built`` around the tensors of ``skeleton``, with one set at each private place.

    Args:
        skeleton: a model of the source's class, a SwitchableBN in each BatchNorm's place.
        built: the source as built for ``resolution``, whose own values don't matter; the skeleton itself if one model
            takes all sizes.
        resolutions: the trained ones, from the largest to the smallest.
    """
    memo = fresh(built) | _shared(built, skeleton)
    for name, module in built.named_modules(remove_duplicate=False):
        own = skeleton.get_submodule(name)
        if isinstance(own, SwitchableBN) and id(module) not in memo:
            memo[id(module)] = own.bn_set(resolution)
    private, ties = private_owners(skeleton), dict[int, Tensor | None]()
    for name, owner in private.items():
        module = built.get_submodule(name)
        parameters, buffers = tensors_at(owner, module, resolution, resolutions)
        for key, native in owner._parameters.items():
            parameters[key] = parameters[key] if native is None else ties.setdefault(id(native), parameters[key])
        memo |= {id(module._parameters): parameters, id(module._buffers): buffers}
        memo |= {id(module._modules["at"]): None} if "at" in module._modules else {}
    path = copy.deepcopy(built, memo)
    for name in private:
        path.get_submodule(name)._modules.pop("at", None)
    return path


def snapshot(skeleton: nn.Module, built: nn.Module, resolution: int, resolutions: Sequence[int]) -> nn.Module:
    """Return the path of an untrained resolution: shared weights, interpolated sets, eval mode only."""
    path = make_path(skeleton, built, resolution, resolutions).eval()
    path.register_forward_pre_hook(_refuse_training)
    return path


def relink(skeleton: nn.Module, path: nn.Module, resolution: int, resolutions: Sequence[int]) -> None:
    """Show a path the tensors that took another's place, and forget what it computed from the old ones.

    Most modules share their dictionaries with the skeleton; owners of private tensors have dictionaries of their own.
    """
    for name, owner in private_owners(skeleton).items():
        module = path.get_submodule(name)
        parameters, buffers = tensors_at(owner, module, resolution, resolutions)
        module._parameters.update(parameters)  # type: ignore[arg-type]
        module._buffers = buffers
    clear_caches(path)


def fresh(model: nn.Module) -> dict[int, Any]:
    """Return a deepcopy memo that starts empty containers anew, among them caches such as ``attention_bias_cache``.

    A cache may hold tensors of a graph, which can't be copied, or of other values than the copy's. Most attributes of a
    module are empty containers for hooks: with them told, a copy takes a third of the time.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for name, value in vars(module).items():
            if type(value) in (dict, OrderedDict, set) and (not value or name.endswith("_cache")):
                memo[id(value)] = type(value)()
    return memo


def clear_caches(model: nn.Module) -> None:
    """Empty the caches of computed tensors."""
    for module in model.modules():
        for name, value in vars(module).items():
            if name.endswith("_cache") and isinstance(value, dict):
                value.clear()


def _shared(built: nn.Module, skeleton: nn.Module) -> dict[int, Any]:
    """Return a deepcopy memo under which a copy of ``built`` has the tensors of ``skeleton``, those of its own shape.

    The dictionaries themselves are shared: ``to()`` replaces buffers in them, and both sides must see it.
    """
    memo: dict[int, Any] = {}
    for name, module in built.named_modules():
        own = skeleton.get_submodule(name)
        for mine, theirs in ((module._parameters, own._parameters), (module._buffers, own._buffers)):
            fitting = {key: theirs[key] for key in mine if _shape(mine[key]) == _shape(theirs[key])}
            memo |= {id(mine[key]): tensor for key, tensor in fitting.items() if tensor is not None}
            # A table of an untrained size, where the trained ones have one shape, stays what was built.
            memo |= {id(mine): theirs} if len(fitting) == len(mine) else {}
    return memo


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape


def _empty(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _refuse_training(path: nn.Module, args: Any) -> None:
    if path.training:
        raise ResolutionError(
            "an interpolated path is in train mode; it is a snapshot for evaluation. "
            "Call eval(), train at a trained resolution, or take net.extract(resolution)."
        )
