"""Folding: each BatchNorm of one path becomes part of the layer next to it, where that is exact in eval mode.

path → pairs of BatchNorm and layer, found in its graph → an independent model with fewer layers, checked against it
"""

import copy
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d, Conv2dSame, DropPath, FrozenBatchNormAct2d
from timm.layers import Linear as TimmLinear
from timm.layers.norm_act import SyncBatchNormAct
from timm.layers.split_batchnorm import SplitBatchNorm2d
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._pytree import tree_leaves
from torchvision.ops import FrozenBatchNorm2d

from rsconvert.errors import ResolutionError, UnsupportedModelError, first_line
from rsconvert.models import as_call, example_arguments
from rsconvert.surgery.graph import trace
from rsconvert.surgery.network import SwitchableModel, batchnorms, copy_model, copy_structure, on_meta
from rsconvert.surgery.trial import fitted_inside

__all__ = ["FoldReport", "Pair", "find_pairs", "fold_batchnorm", "largest_difference", "prepare_folded"]

# Of float32 as a rule; where rounding grows from layer to layer, and in half precision, float64 decides.
_TOLERANCE, _EXACT = 1e-4, 1e-8
_LAYERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv2dSame, nn.Linear, TimmLinear),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
_NORMS = (
    *(_BatchNorm, nn.SyncBatchNorm, SplitBatchNorm2d, FrozenBatchNorm2d),
    *(BatchNormAct2d, SyncBatchNormAct, FrozenBatchNormAct2d),
)
# In eval mode their output is their input.
_PASSING = (nn.Identity, nn.modules.dropout._DropoutNd, DropPath)
_Outputs = list[tuple[str, Any]]


@dataclass(frozen=True)
class Pair:
    """A BatchNorm and the layer that can take it over; ``behind`` if the BatchNorm stands behind the layer."""

    bn: str
    layer: str
    behind: bool


@dataclass(frozen=True)
class FoldReport:
    """What became of each BatchNorm of a path.

    ``folded`` maps a BatchNorm to the layer that took it over, ``kept`` one that stays to the reason. ``difference`` is
    the largest relative difference between the two models, max |a - b| / max |a|, over their outputs and those of
    every BatchNorm, on random images of ``resolution``.
    """

    resolution: int
    folded: Mapping[str, str]
    kept: Mapping[str, str]
    difference: float

    def __str__(self) -> str:
        counts = f"{len(self.folded)} of {len(self.folded) + len(self.kept)} BatchNorms folded"
        lines = [f"{self.resolution}: {counts}, difference {self.difference:.1e}"]
        return "\n".join([*lines, *(f"  kept {name}: {reason}" for name, reason in self.kept.items())])


@torch.no_grad()
def fold_batchnorm(model: nn.Module, resolution: int) -> tuple[nn.Module, FoldReport]:
    """Return an independent copy of a path for inference, without the BatchNorms that a neighbouring layer can absorb.

    The copy is in eval mode and of the model's class. A convolution or linear layer gets another weight and a bias;
    in place of the BatchNorm stands ``nn.Identity``, or what is left of it: its drop layer and its activation.
    A BatchNorm that no layer can take stays, and is listed with the reason.

    Args:
        model: a plain model in any mode, such as ``net.at(160)``; left unchanged, it shares no tensor with the copy.
        resolution: side in pixels of the images on which both are compared.
    Raises:
        UnsupportedModelError: the model holds no BatchNorm, is a switchable network, or computes something else folded.
        ResolutionError: the model does not run at the resolution.
    """
    if isinstance(model, SwitchableModel):
        raise UnsupportedModelError(
            "a switchable network is to be folded; one path at a time can be. Use net.at(resolution)."
        )
    if not batchnorms(model):
        raise UnsupportedModelError(
            f"{type(model).__name__} holds no BatchNorm; folding needs at least one. Use the model as it is."
        )
    dimensions, wanted = _watched(copy_structure(model).eval(), resolution)
    pairs, kept = find_pairs(model, dimensions)
    folded = _folded(model, pairs)
    difference = _difference(wanted, folded, resolution, pairs)
    if not difference <= _TOLERANCE:  # it may be NaN
        exact = copy_model(model).double().eval()
        rest = _difference(_watched(exact, resolution)[1], _folded(exact, pairs), resolution, pairs)
        if not rest <= _EXACT:
            raise UnsupportedModelError(
                f"{type(model).__name__} folded differs by {rest:.1e} at {resolution} in float64; rounding alone, "
                f"{_EXACT}, is accepted. Use the path as it is, and please report it."
            )
    return folded, FoldReport(resolution, {pair.bn: pair.layer for pair in pairs}, kept, difference)


def prepare_folded(model: nn.Module, folded: Mapping[str, str]) -> None:
    """Give a stock model the layers of its folded counterpart, whose tensors it then takes strictly.

    Args:
        folded: as in `FoldReport`; what the metadata of a folded export hold.
    """
    for bn, name in folded.items():
        layer = model.get_submodule(name)
        outputs = getattr(layer, "out_channels", None) or layer.out_features
        layer.bias = nn.Parameter(torch.zeros(cast(int, outputs)))
        model.set_submodule(bn, _remainder(model.get_submodule(bn)))


def _watched(model: nn.Module, resolution: int, names: Collection[str] = ()) -> tuple[dict[str, int], _Outputs]:
    """Run a model; return the dimensions of its BatchNorms' inputs, and their outputs in the order of the calls.

    The last is the output of the model, under an empty name. ``names`` are watched instead of the BatchNorms.
    """
    args, kwargs = as_call(example_arguments(model, resolution))  # before the hooks: it runs the model, too
    dimensions: dict[str, int] = {}
    outputs: _Outputs = []

    def note(name: str, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        dimensions[name] = args[0].ndim if args else 0
        outputs.append((name, output.clone()))  # an activation may work in place

    watched = set(names or batchnorms(model)) - {""}
    hooks = [m.register_forward_hook(partial(note, name)) for name, m in model.named_modules() if name in watched]
    try:
        with fitted_inside(model, resolution):
            output = model(*args, **kwargs)
    except Exception as error:  # whatever the model's own code raises
        raise ResolutionError(
            f"resolution {resolution} does not work ({type(error).__name__}: {first_line(error)}); a size that every "
            "layer can take is needed. Choose another one."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return dimensions, [*outputs, ("", output)]


def _difference(wanted: _Outputs, folded: nn.Module, resolution: int, pairs: Collection[Pair]) -> float:
    """Return the largest relative difference; infinite where the runs can't be compared."""
    names = [name for name, _ in wanted]
    _, got = _watched(folded, resolution, set(names))
    if names != [name for name, _ in got]:
        return float("inf")
    # What a layer took over from ahead of it shows behind that layer only.
    ahead = {pair.bn for pair in pairs if not pair.behind}
    return largest_difference(*([x for name, x in run if name not in ahead] for run in (wanted, got)))


def largest_difference(one: Any, other: Any) -> float:
    """Return max |a - b| / max |a| of nested outputs; infinite where they can't be compared."""
    leaves, others = tree_leaves(one), tree_leaves(other)
    return max(map(_relative, leaves, others)) if len(leaves) == len(others) else float("inf")


def _relative(one: Any, other: Any) -> float:
    if not isinstance(one, Tensor) or not one.is_floating_point() or one.numel() == 0:
        return 0.0
    if one.shape != other.shape or not one.isfinite().all():
        return float("inf")
    scale = one.abs().max()
    return float((one - other).abs().max() / torch.where(scale > 0, scale, 1))


def _folded(model: nn.Module, pairs: Collection[Pair]) -> nn.Module:
    """Return a copy in which the layers and the remainders of the BatchNorms stand in the place of the pairs."""
    new: dict[int, nn.Module] = {}
    for pair in pairs:
        layer, bn = model.get_submodule(pair.layer), model.get_submodule(pair.bn)
        taken = new.setdefault(id(layer), copy.deepcopy(layer))
        like = cast(nn.Parameter, layer.weight)
        weight, bias = (_behind if pair.behind else _ahead)(taken, bn)
        taken.weight, taken.bias = (nn.Parameter(x.to(like), like.requires_grad) for x in (weight, bias))
        new[id(bn)] = _remainder(bn)
    return copy_model(model, new).eval()


def _remainder(bn: nn.Module) -> nn.Module:
    parts = [bn._modules.get(key) for key in ("drop", "act")]
    left = [copy.deepcopy(part) for part in parts if part is not None and not isinstance(part, nn.Identity)]
    return nn.Sequential(*left) if len(left) > 1 else left[0] if left else nn.Identity()


def _behind(layer: nn.Module, bn: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a layer that also does what the BatchNorm behind it did."""
    groups = layer.groups if isinstance(layer, _ConvTransposeNd) else 0
    bias = None if layer.bias is None else _exact(layer.bias)
    weight, bias = fuse_conv_bn_weights(_swapped(_exact(layer.weight), groups), bias, *_statistics(bn))
    return _swapped(weight, groups), bias


def _swapped(weight: Tensor, groups: int) -> Tensor:
    """Turn the weight of a transposed convolution, (in, out / groups, …), into that of a plain one, or back."""
    return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1) if groups else weight


def _ahead(layer: nn.Module, bn: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a layer that also does what the BatchNorm ahead of it did."""
    weight, groups = _exact(layer.weight), layer.groups if isinstance(layer, _ConvNd) else 1

    def per_input(values: Tensor) -> Tensor:  # as a factor of a weight (out, in / groups, …)
        own = values.view(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1)
        return own.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))

    mean, variance, eps, gamma, beta = _statistics(bn)
    scale = gamma * torch.rsqrt(variance + eps)
    added = (weight * per_input(beta - mean * scale)).flatten(1).sum(1)
    return weight * per_input(scale), added if layer.bias is None else _exact(layer.bias) + added


def _statistics(bn: nn.Module) -> tuple[Tensor, Tensor, float, Tensor, Tensor]:
    """Return mean, variance, eps, γ and β."""
    mean, variance = _exact(bn.running_mean), _exact(bn.running_var)
    gamma = torch.ones_like(mean) if bn.weight is None else _exact(bn.weight)
    beta = torch.zeros_like(mean) if bn.bias is None else _exact(bn.bias)
    return mean, variance, cast(float, bn.eps), gamma, beta


def _exact(tensor: Any) -> Tensor:
    """Return a copy in float64, which not every device has."""
    return cast(Tensor, tensor).detach().to("cpu", torch.float64)


def find_pairs(model: nn.Module, dimensions: Mapping[str, int]) -> tuple[list[Pair], dict[str, str]]:
    """Return the pairs of a model in eval mode, and the BatchNorms without a layer, each with the reason.

    A pair is exact arithmetic: each of the two is called once, nothing but the other uses what lies between, and
    nothing nonlinear nor a border of zeros is there.

    Args:
        dimensions: the number of dimensions of the input of each BatchNorm that runs, by name.
    """
    view = _View(model, dimensions)
    found = {name: view.pair(name) for name in view.modules if name in batchnorms(model)}
    pairs = [pair for pair in found.values() if isinstance(pair, Pair)]
    return pairs, {name: reason for name, reason in found.items() if isinstance(reason, str)}


class _View:
    """The graph of a model as the search reads it; a method returns a reason where there is no pair."""

    def __init__(self, model: nn.Module, dimensions: Mapping[str, int]) -> None:
        graph, self.opaque = trace(on_meta(model).eval())
        self.dimensions = dimensions
        self.modules = dict(model.named_modules())
        self.calls: dict[str, list[fx.Node]] = {}
        for node in graph.nodes if graph else ():
            if node.op == "call_module":
                self.calls.setdefault(str(node.target), []).append(node)
        own = (parameter for module in nn.Module.modules(model) for parameter in module._parameters.values())
        self.owners = Counter(id(parameter) for parameter in own if parameter is not None)

    def pair(self, name: str) -> Pair | str:
        calls = self.calls.get(name, [])
        if len(calls) != 1:
            return self._uncalled(name) if not calls else f"it is called {len(calls)} times"
        if reason := _unfit_norm(self.modules[name]):
            return reason
        ahead = self._layer_ahead(calls[0])
        if isinstance(ahead, Pair):
            return ahead
        after = self._layer_after(calls[0])
        return after if isinstance(after, Pair) else f"{ahead}, and {after}"

    def _uncalled(self, name: str) -> str:
        for place, reason in self.opaque.items():
            if not place or f"{name}.".startswith(f"{place}."):
                return f"torch.fx can't enter {place or 'the model'} around it ({reason})"
        return "it is not called in eval mode"

    def _layer_ahead(self, bn: fx.Node) -> Pair | str:
        node = bn.all_input_nodes[0]
        while isinstance(self._module(node), _PASSING) and len(node.users) == 1:
            node = node.all_input_nodes[0]
        name, layer = str(bn.target), self._module(node)
        if not isinstance(layer, (_ConvNd, nn.Linear)):
            return f"its input comes from {self._text(node)}"
        reason = f"has {len(node.users)} readers" if len(node.users) > 1 else None
        if isinstance(layer, nn.Linear) and self.dimensions[name] != 2:
            reason = reason or "has its channels in another place"
        reason = reason or self._unfit_layer(node, layer)
        return f"{self._text(node)} ahead of it {reason}" if reason else Pair(name, str(node.target), behind=True)

    def _layer_after(self, bn: fx.Node) -> Pair | str:
        name, node = str(bn.target), bn
        act = self.modules[name]._modules.get("act")
        if act is not None and not isinstance(act, nn.Identity):
            return f"its own {type(act).__name__} follows"
        while node is bn or isinstance(self._module(node), _PASSING):
            if len(node.users) != 1:
                return f"its output has {len(node.users)} readers"
            node = next(iter(node.users))
        layer = self._module(node)
        if not isinstance(layer, (_ConvNd, nn.Linear)):
            return f"its output goes to {self._text(node)}"
        reason = self._unfit_layer(node, layer) or _inexact(layer, self.dimensions[name])
        return f"{self._text(node)} behind it {reason}" if reason else Pair(name, str(node.target), behind=False)

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def _unfit_layer(self, node: fx.Node, layer: nn.Module) -> str | None:
        if reason := _changed(layer, "weight"):
            return reason
        if not _inherits(layer, _LAYERS):
            return "has an arithmetic of its own"
        if (calls := len(self.calls[str(node.target)])) > 1:
            return f"is called {calls} times"
        tied = any(self.owners[id(parameter)] > 1 for parameter in layer._parameters.values())
        return "shares its tensors with another layer" if tied else None

    def _text(self, node: fx.Node) -> str:
        if (module := self._module(node)) is not None:
            return f"{node.target} ({type(module).__name__})"
        if node.op in ("placeholder", "output"):
            return f"the model's {'input' if node.op == 'placeholder' else 'output'}"
        return str(getattr(node.target, "__name__", node.target))


def _unfit_norm(bn: nn.Module) -> str | None:
    if bn._buffers.get("running_mean") is None or bn._buffers.get("running_var") is None:
        return "it has no running statistics"
    if reason := _changed(bn, "weight", "bias"):
        return f"it {reason}"
    return None if _inherits(bn, _NORMS) else f"{type(bn).__name__} has an arithmetic of its own"


def _inherits(module: nn.Module, classes: tuple[type[nn.Module], ...]) -> bool:
    """Return whether a module computes as one of the classes does: a subclass may have a forward of its own."""
    forwards = [(kind.forward, getattr(kind, "_conv_forward", None)) for kind in (type(module), *classes)]
    return "forward" not in vars(module) and forwards[0] in forwards[1:]


def _changed(module: nn.Module, *keys: str) -> str | None:
    if module._forward_hooks or module._forward_pre_hooks:
        return "has hooks"
    plain = all(key in module._parameters or key in module._buffers for key in keys)
    return None if plain else "computes its weight from other tensors"


def _inexact(layer: nn.Module, dimensions: int) -> str | None:
    """Return why what a BatchNorm adds can't become a bias of the layer behind it."""
    if isinstance(layer, nn.Linear):
        return None if dimensions == 2 else "has its channels in another place"
    if isinstance(layer, _ConvTransposeNd):
        return "is transposed: its borders see fewer inputs"
    assert isinstance(layer, _ConvNd)
    pads = any(layer._reversed_padding_repeated_twice) and layer.padding_mode == "zeros"
    return "pads with zeros" if pads or isinstance(layer, Conv2dSame) else None
