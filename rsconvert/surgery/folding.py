"""Folding: each BatchNorm of one path becomes part of the convolution beside it, where that is exact in eval mode.

path → pairs of BatchNorm and layer → an independent model with fewer layers, checked against the path
"""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._pytree import tree_leaves

from rsconvert.errors import ResolutionError, UnsupportedModelError, first_line
from rsconvert.models import as_call, example_arguments
from rsconvert.surgery.network import SwitchableModel, batchnorms, copy_model, copy_structure
from rsconvert.surgery.pairing import Pair, find_pairs
from rsconvert.surgery.survey import fitted_inside

__all__ = ["FoldReport", "fold_batchnorm", "largest_difference", "prepare_folded"]

# Of float32 as a rule; where rounding grows from layer to layer, and in half precision, float64 tells it from an error.
_TOLERANCE, _EXACT = 1e-4, 1e-8
_Outputs = list[tuple[str, Any]]


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
        total = len(self.folded) + len(self.kept)
        lines = [
            f"{self.resolution}: {len(self.folded)} of {total} BatchNorms folded, difference {self.difference:.1e}"
        ]
        return "\n".join([*lines, *(f"  kept {name}: {reason}" for name, reason in self.kept.items())])


@torch.no_grad()
def fold_batchnorm(model: nn.Module, resolution: int) -> tuple[nn.Module, FoldReport]:
    """Return an independent copy of a path for inference, without the BatchNorms that a layer beside them can absorb.

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
    _check_plain(model)
    dimensions, wanted = _watched(copy_structure(model).eval(), resolution)
    pairs, kept = find_pairs(model, dimensions)
    folded = _folded(model, pairs)
    difference = _difference(wanted, folded, resolution, pairs)
    if not difference <= _TOLERANCE:
        _check_exact(model, resolution, pairs)
    return folded, FoldReport(resolution, {pair.bn: pair.layer for pair in pairs}, kept, difference)


def prepare_folded(model: nn.Module, folded: Mapping[str, str]) -> None:
    """Give a stock model the layers of its folded fellow, whose tensors it then takes strictly.

    Args:
        folded: as in `FoldReport`; what the metadata of a folded export hold.
    """
    for bn, name in folded.items():
        layer = model.get_submodule(name)
        outputs = getattr(layer, "out_channels", None) or layer.out_features
        layer.bias = nn.Parameter(torch.zeros(cast(int, outputs)))
        model.set_submodule(bn, _remainder(model.get_submodule(bn)))


def _check_plain(model: nn.Module) -> None:
    if isinstance(model, SwitchableModel):
        raise UnsupportedModelError(
            "a switchable network is to be folded; one path at a time can be. Use net.at(resolution)."
        )
    if not batchnorms(model):
        raise UnsupportedModelError(
            f"{type(model).__name__} holds no BatchNorm; folding needs at least one. Use the model as it is."
        )


def _check_exact(model: nn.Module, resolution: int, pairs: Collection[Pair]) -> None:
    exact = copy_model(model).double().eval()
    _, wanted = _watched(exact, resolution)
    difference = _difference(wanted, _folded(exact, pairs), resolution, pairs)
    if not difference <= _EXACT:
        raise UnsupportedModelError(
            f"{type(model).__name__} folded differs by {difference:.1e} at {resolution} in float64; rounding alone, "
            f"{_EXACT}, is accepted. Use the path as it is, and please report it."
        )


def _watched(model: nn.Module, resolution: int, names: Collection[str] = ()) -> tuple[dict[str, int], _Outputs]:
    """Run a model; return the dimensions of what its BatchNorms take, and what they give, in the order of the calls.

    The last is the output of the model, under an empty name.

    Args:
        names: modules to watch instead of the BatchNorms.
    """
    args, kwargs = as_call(example_arguments(model, resolution))  # before the hooks: it runs the model, too
    dimensions: dict[str, int] = {}
    outputs: _Outputs = []

    def watch(name: str) -> Any:
        def note(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            dimensions[name] = args[0].ndim if args else 0
            outputs.append((name, output.clone()))  # an activation may work in place

        return note

    watched = set(names or batchnorms(model)) - {""}
    hooks = [m.register_forward_hook(watch(name)) for name, m in model.named_modules() if name in watched]
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
    _, got = _watched(folded, resolution, {name for name, _ in wanted})
    if [name for name, _ in wanted] != [name for name, _ in got]:
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
    return copy_model(model, _replacements(model, pairs)).eval()


def _replacements(model: nn.Module, pairs: Collection[Pair]) -> dict[int, nn.Module]:
    """Return by the id of a module what stands in its place."""
    new: dict[int, nn.Module] = {}
    for pair in pairs:
        layer, bn = model.get_submodule(pair.layer), model.get_submodule(pair.bn)
        taken = new.setdefault(id(layer), copy.deepcopy(layer))
        like = cast(nn.Parameter, layer.weight)
        for key, value in zip(("weight", "bias"), (_behind if pair.behind else _ahead)(taken, bn), strict=True):
            setattr(taken, key, nn.Parameter(value.to(like), like.requires_grad))
        new[id(bn)] = _remainder(bn)
    return new


def _remainder(bn: nn.Module) -> nn.Module:
    parts = [bn._modules.get(key) for key in ("drop", "act")]
    left = [copy.deepcopy(part) for part in parts if part is not None and not isinstance(part, nn.Identity)]
    return nn.Sequential(*left) if len(left) > 1 else left[0] if left else nn.Identity()


def _behind(layer: nn.Module, bn: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a layer that also does what the BatchNorm behind it did."""
    weight, groups = _exact(layer.weight), layer.groups if isinstance(layer, _ConvTransposeNd) else 0
    if groups:
        weight = _swapped(weight, groups)
    mean, variance, gamma, beta = _statistics(bn)
    bias = None if layer.bias is None else _exact(layer.bias)
    weight, bias = fuse_conv_bn_weights(weight, bias, mean, variance, cast(float, bn.eps), gamma, beta)
    return _swapped(weight, groups) if groups else weight, bias


def _swapped(weight: Tensor, groups: int) -> Tensor:
    """Turn the weight of a transposed convolution, (in, out / groups, …), into that of a plain one, or back."""
    return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)


def _ahead(layer: nn.Module, bn: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a layer that also does what the BatchNorm ahead of it did."""
    weight, groups = _exact(layer.weight), layer.groups if isinstance(layer, _ConvNd) else 1
    mean, variance, gamma, beta = _statistics(bn)
    scale = gamma * torch.rsqrt(variance + cast(float, bn.eps))
    scale, shift = (_inputs(x, weight, groups) for x in (scale, beta - mean * scale))
    added = (weight * shift).flatten(1).sum(1)
    return weight * scale, added if layer.bias is None else _exact(layer.bias) + added


def _inputs(values: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Return one value per input channel as a factor of a weight (out, in / groups, …)."""
    own = values.view(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1)
    return own.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))


def _statistics(bn: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean, variance = _exact(bn.running_mean), _exact(bn.running_var)
    gamma = torch.ones_like(mean) if bn.weight is None else _exact(bn.weight)
    beta = torch.zeros_like(mean) if bn.bias is None else _exact(bn.bias)
    return mean, variance, gamma, beta


def _exact(tensor: Any) -> Tensor:
    """Return a copy in float64, which not every device has."""
    return cast(Tensor, tensor).detach().to("cpu", torch.float64)
