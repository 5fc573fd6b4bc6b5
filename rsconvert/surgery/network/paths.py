"""Paths: copies of a network's modules around its tensors, one for each resolution."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rsconvert.errors import ResolutionError, UnsupportedModelError, first_line
from rsconvert.surgery.network.batchnorm import SwitchableBN, bn_sets
from rsconvert.surgery.network.copying import HOOKS, copy_modules, has_bound_hooks, hook_registries, kept_outputs
from rsconvert.surgery.network.parts import Part
from rsconvert.surgery.network.private import sets_of, tensors_at

__all__ = ["copy_model", "copy_structure", "live_path", "make_path", "on_meta", "snapshot"]


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
    """Return a copy whose modules are new and whose tensors are the model's; ``memo`` as for `copy_model`."""
    pairs = [(module, module) for module in nn.Module.modules(model)]
    return copy_modules(model, {**kept_outputs(model), **_shared(pairs), **_all_hooks(model), **(memo or {})})


def on_meta(model: nn.Module) -> nn.Module:
    """Return a copy without data."""
    memo: dict[int, Any] = {id(t): _empty(t) for t in (*model.parameters(), *model.buffers())}
    return copy_model(model, memo)


def live_path(net: Part, built: nn.Module, resolution: int, resolutions: Sequence[int]) -> nn.Module:
    """Return the path of a trained resolution, and make its modules twins of those that the network shows.

    Args:
        net: shows the native path, and those that were made before.
        built: the source as built for ``resolution``, whose own values don't matter; the native path itself if one
            model takes all sizes.
        resolutions: the trained ones, from the largest to the smallest.
    """
    pairs = list(_pairs(built, net))
    memo = _memo(pairs, resolution, resolutions)
    memo |= {id(module): own for module, own in pairs if not isinstance(own, (Part, SwitchableBN))}
    path = copy_modules(built, memo)
    for module, own in pairs:
        if isinstance(own, Part) and own is not net:
            own.__dict__["_rs_twins"].append(memo[id(module)])
    return path


def make_path(net: Part, built: nn.Module, resolution: int, resolutions: Sequence[int]) -> nn.Module:
    """Return the path of any resolution, with modules of its own around the network's tensors, in eval mode.

    At an untrained resolution the private tensors are a snapshot.

    Args:
        net, built, resolutions: as for `live_path`.
    """
    pairs = list(_pairs(built, net))
    memo = {**kept_outputs(built), **_memo(pairs, resolution, resolutions), **_hooks(pairs, net.__dict__["_bound"])}
    path = copy_modules(built, memo)
    if any(module.training for module, _ in pairs):
        path.eval()
    return path


def snapshot(net: Part, built: nn.Module, resolution: int, resolutions: Sequence[int]) -> nn.Module:
    """Return the path of an untrained resolution: shared weights, interpolated sets, eval mode only."""
    path = make_path(net, built, resolution, resolutions)
    path._forward_pre_hooks = OrderedDict(path._forward_pre_hooks)  # those of the network's paths stay theirs
    path.register_forward_pre_hook(_refuse_training)
    return path


def _memo(pairs: Sequence[tuple[nn.Module, nn.Module]], resolution: int, resolutions: Sequence[int]) -> dict[int, Any]:
    """Return a deepcopy memo under which a copy has the network's shared tensors, and the sets of a resolution."""
    memo = _shared(pairs)
    layers = [(module, own) for module, own in pairs if isinstance(own, SwitchableBN)]
    sets = bn_sets([own for _, own in layers], resolution)
    memo |= {id(module): bn for (module, _), bn in zip(layers, sets, strict=True)}
    ties = dict[int, Tensor | None]()
    for module, owner in pairs:
        if sets_of(owner) is None:
            continue
        parameters, buffers = tensors_at(owner, module, resolution, resolutions)
        for key, native in owner._parameters.items():
            parameters[key] = parameters[key] if native is None else ties.setdefault(id(native), parameters[key])
        memo |= {id(module._parameters): parameters, id(module._buffers): buffers}
    return memo


def _hooks(pairs: Iterable[tuple[nn.Module, nn.Module]], bound: Collection[int]) -> dict[int, Any]:
    """Return a deepcopy memo under which a copy has the hooks of its fellow.

    Args:
        bound: the ids of modules whose hooks belong to some object of the source, which is copied with them.
    """
    memo: dict[int, Any] = {}
    for module, own in pairs:
        shown = own._rs_twins[0] if isinstance(own, Part) else own
        if isinstance(own, SwitchableBN) or id(shown) in bound or not any(vars(shown)[name] for name in HOOKS):
            continue
        for name in HOOKS:
            theirs = own._rs_common_hooks(name) if isinstance(own, Part) else vars(own)[name]
            memo[id(vars(module)[name])] = theirs
    return memo


def _all_hooks(model: nn.Module) -> dict[int, Any]:
    """Return a deepcopy memo under which a copy has the hooks of a model, also those that come later."""
    plain = (module for module in nn.Module.modules(model) if not has_bound_hooks(module))
    return {id(hooks): hooks for module in plain for hooks in hook_registries(module)}


def _pairs(built: nn.Module, shown: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Walk two models of one structure side by side, each module once, and not below a BatchNorm's place."""
    ahead, seen = [(built, shown)], set[int]()
    while ahead:
        module, own = ahead.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield module, own
        if not isinstance(own, SwitchableBN):
            children = [(child, own._modules[name]) for name, child in module._modules.items()]
            ahead += [(child, fellow) for child, fellow in children if child is not None and fellow is not None]


def _shared(pairs: Iterable[tuple[nn.Module, nn.Module]]) -> dict[int, Any]:
    """Return a deepcopy memo under which a copy has the tensors of its fellow, those of its own shape.

    The dictionaries themselves are shared: ``to()`` replaces buffers in them, and both sides must see it.
    """
    memo: dict[int, Any] = {}
    for module, own in pairs:
        if isinstance(own, SwitchableBN):
            continue
        memo[id(module._non_persistent_buffers_set)] = own._non_persistent_buffers_set
        for mine, theirs in ((module._parameters, own._parameters), (module._buffers, own._buffers)):
            if mine is theirs:
                memo[id(mine)] = mine
                memo.update((id(tensor), tensor) for tensor in mine.values())
                continue
            fitting = {key: theirs[key] for key in mine if _same_shape(mine[key], theirs[key])}
            memo |= {id(mine[key]): tensor for key, tensor in fitting.items() if tensor is not None}
            # A table of an untrained size, where the trained ones have one shape, stays what was built.
            memo |= {id(mine): theirs} if len(fitting) == len(mine) else {}
    return memo


def _same_shape(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and one.shape == other.shape)


def _empty(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _refuse_training(path: nn.Module, args: Any) -> None:
    if path.training:
        raise ResolutionError(
            "an interpolated path is in train mode; it is a snapshot for evaluation. "
            "Call eval(), train at a trained resolution, or take net.extract(resolution)."
        )
