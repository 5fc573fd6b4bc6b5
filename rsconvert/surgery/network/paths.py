"""Paths: a network's modules for each resolution, around its tensors; the tree that it shows of them."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from rsconvert.errors import ResolutionError
from rsconvert.surgery.network.copying import ATOMS, HOOKS, copy_modules, has_bound_hooks, references
from rsconvert.surgery.network.layer import SwitchableLayer, interpolated
from rsconvert.surgery.network.parts import Part, StandIn, make_part
from rsconvert.surgery.network.private import PrivateSets, private_tensors, same_shape, sets_of, tensors_at

__all__ = ["divided", "live_path", "make_path", "shown_children", "snapshot"]

_REGISTRIES = ("_parameters", "_buffers", "_modules")
_Children = dict[str, nn.Module | None]


def divided(native: nn.Module, private: Collection[int], trees: Sequence[nn.Module] = ()) -> set[int]:
    """Return the ids of the modules that each path needs for itself: private ones, and all that hold or refer to them.

    One with a hook that belongs to some object is among them, for that object may be one of the path's.

    Args:
        native: the native path.
        private: the ids of its BatchNorms, private classifiers and other owners of private tensors.
        trees: the same model built for other resolutions; a module with other settings there is divided too.
    """
    found = set(private)
    for tree in trees:
        others = dict(tree.named_modules(remove_duplicate=False))
        pairs = ((module, others[name]) for name, module in native.named_modules() if name in others)
        found |= {id(module) for module, other in pairs if not _alike(module, other)}
    found |= {id(module) for module in nn.Module.modules(native) if has_bound_hooks(module)}
    held = {id(m): [id(other) for other in _held(m)] for m in nn.Module.modules(native)}
    while more := [key for key, others in held.items() if key not in found and not found.isdisjoint(others)]:
        found.update(more)
    return found


def shown_children(
    native: nn.Module, own: Collection[int], layers: Mapping[int, SwitchableLayer], sets: Mapping[str, PrivateSets]
) -> _Children:
    """Return what a network shows below its root: the shared modules, and Parts with the native one as first twin.

    Args:
        own: the result of `divided`.
        layers: id of a native BatchNorm or private classifier → the layer that owns it.
        sets: name of another owner of private tensors → its sets.
    """
    made: dict[int, nn.Module] = dict(layers)

    def children_of(module: nn.Module, place: str) -> _Children:
        children = {name: show(child, f"{place}.{name}".lstrip(".")) for name, child in module._modules.items()}
        return {**children, "at": sets[place]} if place in sets else children

    def show(module: nn.Module | None, place: str) -> nn.Module | None:
        if module is None or id(module) not in own:
            return module
        if id(module) not in made:
            children = children_of(module, place)
            made[id(module)] = make_part([module], children, place, private_tensors(module, sets.get(place)))
        return made[id(module)]

    return children_of(native, "")


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
    memo |= {id(module): own for module, own in pairs if not isinstance(own, StandIn)}
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
    memo = {**_memo(pairs, resolution, resolutions), **_hooks(pairs, net.__dict__["_bound"])}
    path = copy_modules(built, memo, detach=True)
    if any(module.training for module, _ in pairs):
        path.eval()
    return path


def snapshot(net: Part, built: nn.Module, resolution: int, resolutions: Sequence[int]) -> nn.Module:
    """Return the path of an untrained resolution: shared weights, interpolated sets, eval mode only."""
    path = make_path(net, built, resolution, resolutions)
    path._forward_pre_hooks = OrderedDict(path._forward_pre_hooks)  # those of the network's paths stay theirs
    path.register_forward_pre_hook(_refuse_training)
    return path


def _held(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that a module holds, as children, in other attributes or by its hooks."""
    yield from (child for child in module._modules.values() if child is not None)
    for name, value in vars(module).items():
        if type(value) not in ATOMS and name not in _REGISTRIES:
            yield from references(value)


def _alike(module: nn.Module, other: nn.Module) -> bool:
    """Return whether two modules are sure to compute the same: torch's own, of the same settings."""
    of_torch = type(module).__module__.startswith("torch.nn.")
    return of_torch and type(module) is type(other) and module.extra_repr() == other.extra_repr()


def _pairs(built: nn.Module, shown: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Walk two models of one structure in parallel, each module once, and not below a layer of sets."""
    ahead, seen = [(built, shown)], set[int]()
    while ahead:
        module, own = ahead.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield module, own
        if not isinstance(own, SwitchableLayer):
            children = [(child, own._modules[name]) for name, child in module._modules.items()]
            ahead += [(child, other) for child, other in children if child is not None and other is not None]


def _memo(pairs: Sequence[tuple[nn.Module, nn.Module]], resolution: int, resolutions: Sequence[int]) -> dict[int, Any]:
    """Return a deepcopy memo under which a copy has the network's shared tensors, and the sets of a resolution."""
    layers = [(module, own) for module, own in pairs if isinstance(own, SwitchableLayer)]
    memo = _shared((module, own) for module, own in pairs if not isinstance(own, SwitchableLayer))
    sets = interpolated([own for _, own in layers], resolution)
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


def _shared(pairs: Iterable[tuple[nn.Module, nn.Module]]) -> dict[int, Any]:
    """Return a deepcopy memo under which a copy has the tensors of its counterpart, those of its own shape.

    The dictionaries themselves are shared: ``to()`` replaces buffers in them, and both sides must see it.
    """
    memo: dict[int, Any] = {}
    for module, own in pairs:
        memo[id(module._non_persistent_buffers_set)] = own._non_persistent_buffers_set
        for mine, theirs in ((module._parameters, own._parameters), (module._buffers, own._buffers)):
            fitting = [key for key in mine if same_shape(mine[key], theirs[key])]
            for key in fitting:
                if (tensor := theirs[key]) is not None:
                    memo[id(mine[key])] = tensor
            # A table of an untrained size, where the trained ones have one shape, stays what was built.
            if len(fitting) == len(mine):
                memo[id(mine)] = theirs
    return memo


def _hooks(pairs: Iterable[tuple[nn.Module, nn.Module]], bound: Collection[int]) -> dict[int, Any]:
    """Return a deepcopy memo under which a copy has the hooks of its counterpart.

    Args:
        bound: the ids of modules whose hooks belong to some object of the source, which is copied with them.
    """
    memo: dict[int, Any] = {}
    for module, own in pairs:
        shown = own._rs_twins[0] if isinstance(own, Part) else own
        if isinstance(own, SwitchableLayer) or id(shown) in bound or not any(map(vars(shown).get, HOOKS)):
            continue
        for name in HOOKS:
            theirs = own._rs_common_hooks(name) if isinstance(own, Part) else vars(own)[name]
            memo[id(vars(module)[name])] = theirs
    return memo


def _refuse_training(path: nn.Module, args: Any) -> None:
    if path.training:
        raise ResolutionError(
            "an interpolated path is in train mode; it is a snapshot for evaluation. "
            "Call eval(), train at a trained resolution, or take net.extract(resolution)."
        )
