"""The tree that a network shows: the modules that all its paths share, and Parts for those that each has of its own."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import nn

from rsconvert.surgery.network.batchnorm import SwitchableBN
from rsconvert.surgery.network.copying import ATOMS, has_bound_hooks, references
from rsconvert.surgery.network.parts import make_part
from rsconvert.surgery.network.private import PrivateSets

__all__ = ["divided", "private_tensors", "shown_children"]

_REGISTRIES = ("_parameters", "_buffers", "_modules")
Children = dict[str, nn.Module | None]


def divided(native: nn.Module, private: Collection[int], trees: Sequence[nn.Module] = ()) -> set[int]:
    """Return the ids of the modules that each path needs for itself: private ones, and all that lead or refer to them.

    One with a hook that belongs to some object is among them, for that object may be one of the path's.

    Args:
        native: the native path.
        private: the ids of its BatchNorms and of other owners of private tensors.
        trees: the same model built for other resolutions; a module with other settings there is divided too.
    """
    found = set(private)
    for tree in trees:
        found |= {id(module) for module, other in _side_by_side(native, tree) if not _alike(module, other)}
    found |= {id(module) for module in nn.Module.modules(native) if has_bound_hooks(module)}
    held = {id(m): [id(other) for other in _held(m)] for m in nn.Module.modules(native)}
    while more := [key for key, others in held.items() if key not in found and not found.isdisjoint(others)]:
        found.update(more)
    return found


def shown_children(
    native: nn.Module, own: Collection[int], layers: Mapping[int, SwitchableBN], sets: Mapping[str, PrivateSets]
) -> Children:
    """Return what a network shows below its root: Parts with the native module as their first twin, or the module.

    Args:
        own: what `divided` gives.
        layers: id of a native BatchNorm → the layer that owns it.
        sets: name of another owner of private tensors → its sets.
    """
    made: dict[int, nn.Module] = dict(layers)

    def children_of(module: nn.Module, place: str) -> Children:
        named = {name: (child, f"{place}.{name}".lstrip(".")) for name, child in module._modules.items()}
        children = {name: None if child is None else show(child, inner) for name, (child, inner) in named.items()}
        return {**children, "at": sets[place]} if place in sets else children

    def show(module: nn.Module, place: str) -> nn.Module:
        if id(module) not in own:
            return module
        if id(module) not in made:
            children = children_of(module, place)
            made[id(module)] = make_part([module], children, place, private_tensors(module, sets.get(place)))
        return made[id(module)]

    return children_of(native, "")


def private_tensors(module: nn.Module, sets: PrivateSets | None) -> frozenset[str]:
    """Return the names of a module's tensors that have one value per resolution."""
    return frozenset() if sets is None else frozenset({*sets.parameter_names, *module._buffers})


def _held(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that a module holds, as children, in other attributes or by its hooks."""
    yield from (child for child in module._modules.values() if child is not None)
    for name, value in vars(module).items():
        if type(value) not in ATOMS and name not in _REGISTRIES:
            yield from references(value)


def _side_by_side(one: nn.Module, other: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    others = dict(other.named_modules(remove_duplicate=False))
    yield from ((module, others[name]) for name, module in one.named_modules() if name in others)


def _alike(module: nn.Module, other: nn.Module) -> bool:
    """Tell whether two modules are sure to compute the same: torch's own, of the same settings."""
    torch_s = type(module).__module__.startswith("torch.nn.")
    return torch_s and type(module) is type(other) and module.extra_repr() == other.extra_repr()
