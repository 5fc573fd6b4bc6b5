"""Private tensors outside of the BatchNorm modules: classifiers, position tables, what modules hand to F.batch_norm.

The native tensors stay their owner's own; those of another resolution hang below it, as in ``attn.at.160.pos_embed``.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rsconvert.errors import UnsupportedModelError
from rsconvert.surgery.network.layer import interpolation_weights
from rsconvert.surgery.network.rebuilding import resample_table
from rsconvert.surgery.network.recognition import batchnorms

__all__ = [
    "PrivateSets",
    "by_owner",
    "is_head",
    "private_sets",
    "private_tensors",
    "same_shape",
    "sets_of",
    "size_dependent",
    "tensors_at",
]

_Tensors = dict[str, Tensor | None]


class PrivateSets(nn.ModuleDict):
    """The sets of one owner by resolution, the native one excepted; each holds ``parameters`` and all buffers by name.

    An owner's buffers are private together, for those of a position table are index maps that follow its shape.
    """

    def __init__(self, parameters: Sequence[str], sets: Mapping[str, nn.Module]) -> None:
        super().__init__(sets)
        self.parameter_names = tuple(parameters)

    def link(self, owner: nn.Module, twin: nn.Module, place: int) -> None:
        """Give a path's module the tensors of its set, the shared ones included.

        Args:
            owner: the module that the network shows, with the native tensors.
            place: of the path among the resolutions; 0 is native, and has the owner's own.
        """
        if place:
            own = list(self.values())[place - 1]
            twin.__dict__["_buffers"] = own._buffers
            if twin._parameters is not own._parameters:
                twin._parameters.update({**owner._parameters, **own._parameters})


def sets_of(owner: nn.Module) -> PrivateSets | None:
    """Return the sets that hang below a module, if it is an owner of private tensors."""
    at = owner._modules.get("at")
    return at if isinstance(at, PrivateSets) else None


def private_tensors(module: nn.Module, sets: PrivateSets | None) -> frozenset[str]:
    """Return the names of a module's tensors that have one value per resolution."""
    return frozenset() if sets is None else frozenset({*sets.parameter_names, *module._buffers})


def same_shape(one: Tensor | None, other: Tensor | None) -> bool:
    """Return whether two places hold tensors of one shape, or none."""
    return one is other or (one is not None and other is not None and one.shape == other.shape)


def size_dependent(trees: Mapping[int, nn.Module]) -> dict[str, list[str]]:
    """Return the modules whose tensors differ between builds for several sizes, and the parameters that change shape.

    Args:
        trees: resolution → the same model built for it, over the same values.
    """
    native, *others = trees.values()
    inside = tuple(batchnorms(native))
    found = {}
    for name, module in native.named_modules():
        if name in inside or name.startswith(tuple(f"{bn}." for bn in inside if bn)):
            continue
        twins, own = [tree.get_submodule(name) for tree in others], module._parameters
        changing = [key for key in own if not all(same_shape(own[key], twin._parameters[key]) for twin in twins)]
        if changing or not all(_same_buffers(module, twin) for twin in twins):
            found[name] = changing
    return found


def private_sets(
    private: Mapping[str, Sequence[str]], trees: Mapping[int, nn.Module], native: int
) -> dict[str, PrivateSets]:
    """Return owner → its sets of every resolution but the native one.

    Args:
        private: owner → the names of its private parameters; its buffers are private too.
        trees: resolution → the model that holds the values of its set.
    Raises:
        UnsupportedModelError: an owner has an attribute ``at`` already.
    """
    made: dict[tuple[int, int], Tensor] = {}
    found = {}
    for owner, names in private.items():
        module = trees[native].get_submodule(owner)
        if hasattr(module, "at"):
            raise UnsupportedModelError(
                f"{owner or type(module).__name__} has an attribute at, which is the name of its private sets; "
                "another one is needed."
            )
        sets = {str(r): _copy(tree.get_submodule(owner), names, made, r) for r, tree in trees.items() if r != native}
        found[owner] = PrivateSets(names, sets)
    return found


def by_owner(model: nn.Module, tensors: Collection[str]) -> dict[str, list[str]]:
    """Return owner → the names of those of its parameters that are among the tensors."""
    found: dict[str, list[str]] = {}
    for name in tensors:
        owner, _, key = name.rpartition(".")
        names = found.setdefault(owner, [])
        names += [key] if key in model.get_submodule(owner)._parameters else []
    return found


def is_head(module: nn.Module, private: Collection[str]) -> bool:
    """Return whether a module with these private parameters is a private classifier: a linear or convolutional layer.

    All of its tensors are private, so that whole copies of it can be its sets.
    """
    own = {name for name, parameter in module._parameters.items() if parameter is not None}
    bare = not module._buffers and not module._modules
    return isinstance(module, (nn.Linear, _ConvNd)) and bare and own == {*private}


def tensors_at(
    owner: nn.Module, built: nn.Module, resolution: int, resolutions: Sequence[int]
) -> tuple[_Tensors, _Tensors]:
    """Return the parameters and buffers with which an owner runs at a resolution, shared ones included.

    At a trained one they are live. At another one they are a snapshot: tensors of one shape are interpolated as a BN
    set is, position tables are resampled from the nearest trained resolution.

    Args:
        built: the owner as built for ``resolution``; the owner itself if one model takes all sizes.
    """
    if resolution == resolutions[0]:
        return owner._parameters, owner._buffers  # type: ignore[return-value]
    sets = cast(PrivateSets, owner._modules["at"])
    if resolution in resolutions:
        own = sets[str(resolution)]
        if own._parameters.keys() == owner._parameters.keys():
            return own._parameters, own._buffers  # type: ignore[return-value]  # one dictionary: nothing comes apart
        return {**owner._parameters, **own._parameters}, own._buffers
    every = [owner, *sets.values()]
    weights = interpolation_weights(resolution, resolutions)
    names = sets.parameter_names
    nearest = every[min(range(len(every)), key=lambda i: abs(resolutions[i] - resolution))]
    parameters = {name: _between(name, [s._parameters[name] for s in every], weights, nearest, built) for name in names}
    buffers: _Tensors = dict(built._buffers)
    for name in buffers.keys() - owner._non_persistent_buffers_set:
        values = [s._buffers[name] for s in every]
        if len({v.shape for v in (*values, buffers[name]) if v is not None}) == 1:
            buffers[name] = _mixed(values, weights)
    return {**owner._parameters, **parameters}, buffers


def _copy(module: nn.Module, names: Sequence[str], made: dict[tuple[int, int], Tensor], resolution: int) -> nn.Module:
    """Return a module that holds copies of some parameters and of all buffers of another; tied ones stay tied."""
    own = nn.Module()
    for name in names:
        value = module._parameters[name]
        if value is not None:
            new = nn.Parameter(value.detach().clone(), value.requires_grad)
            value = cast(nn.Parameter, made.setdefault((resolution, id(value)), new))
        own.register_parameter(name, value)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            buffer = made.setdefault((resolution, id(buffer)), buffer.detach().clone())
        own.register_buffer(name, buffer, persistent=name not in module._non_persistent_buffers_set)
    return own.train(module.training)


def _between(
    name: str, values: Sequence[Tensor | None], weights: Sequence[float], nearest: nn.Module, built: nn.Module
) -> Tensor | None:
    wanted, table = built._parameters[name], nearest._parameters[name]
    if wanted is None or table is None:
        return None
    if len({v.shape for v in (*values, wanted) if v is not None}) == 1:
        mixed = _mixed(values, weights)
        return None if mixed is None else nn.Parameter(mixed, requires_grad=False)
    resampled = resample_table(table.detach(), name, built)
    assert resampled is not None, f"{name} was resampled before"
    return nn.Parameter(resampled, requires_grad=False)


@torch.no_grad()
def _mixed(values: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor | None:
    """Interpolate between the one or two values of positive weight; equal values give equal bits."""
    near = [(weight, value) for weight, value in zip(weights, values, strict=True) if weight > 0 and value is not None]
    if not near:
        return None
    (_, first), (weight, second) = near[0], near[-1]
    if len(near) == 1 or not first.is_floating_point():
        return first.detach().clone()
    return torch.lerp(first.detach(), second.detach(), weight)


def _same_buffers(one: nn.Module, other: nn.Module) -> bool:
    pairs = ((first, other._buffers[key]) for key, first in one._buffers.items())
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)
