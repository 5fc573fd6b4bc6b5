"""Folding: each BatchNorm of one path becomes part of the convolution beside it, where that is exact in eval mode.

path → pairs of BatchNorm and layer → an independent model with fewer layers, checked against the path
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._pytree import tree_leaves

from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.export.pairing import Pair, find_pairs
from rsconvert.surgery import SwitchableModel, batchnorms
from rsconvert.surgery.paths import copy_model, copy_structure
from rsconvert.surgery.survey import fitted_inside
from rsconvert.zoo import example_arguments
from rsconvert.zoo.building import first_line

__all__ = ["FoldReport", "fold_batchnorm"]

# Of float32, by far: half a percent of an 8-bit mantissa adds up over the layers.
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 0.1


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
    plain = copy_structure(model).eval()
    names = [name for name, _ in plain.named_modules() if name in batchnorms(plain)]
    dimensions, wanted = _watched(plain, resolution, names)
    pairs, kept = find_pairs(plain, dimensions)
    folded = copy_model(model, _replacements(model, pairs)).eval()
    # What a layer took over from ahead of it shows behind that layer only.
    ahead = {pair.bn for pair in pairs if not pair.behind}
    _, got = _watched(folded, resolution, names)
    difference = _difference(*([(n, x) for n, x in run if n not in ahead] for run in (wanted, got)))
    _check_difference(model, resolution, difference)
    return folded, FoldReport(resolution, {pair.bn: pair.layer for pair in pairs}, kept, difference)


def _check_plain(model: nn.Module) -> None:
    if isinstance(model, SwitchableModel):
        raise UnsupportedModelError(
            "a switchable network is to be folded; one path at a time can be. Use net.at(resolution)."
        )
    if not batchnorms(model):
        raise UnsupportedModelError(
            f"{type(model).__name__} holds no BatchNorm; folding needs at least one. Use the model as it is."
        )


def _check_difference(model: nn.Module, resolution: int, difference: float) -> None:
    half = any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters())
    if not difference <= (_HALF_TOLERANCE if half else _TOLERANCE):
        raise UnsupportedModelError(
            f"{type(model).__name__} folded differs by {difference:.1e} at {resolution}; {_TOLERANCE} is accepted, "
            f"{_HALF_TOLERANCE} in half precision. Use the path as it is, and please report it."
        )


def _watched(model: nn.Module, resolution: int, names: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, Any]]]:
    """Run a model; return the dimensions of what the named modules take, and what they give, in order.

    The last is the output of the model, under an empty name.
    """
    dimensions: dict[str, int] = {}
    outputs: list[tuple[str, Any]] = []

    def watch(name: str) -> Any:
        def note(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            dimensions[name] = args[0].ndim if args else 0
            outputs.append((name, output.clone()))  # an activation may work in place

        return note

    hooks = [model.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    try:
        with fitted_inside(model, resolution):
            output = model(*example_arguments(model, resolution))
    except Exception as error:  # whatever the model's own code raises
        raise ResolutionError(
            f"resolution {resolution} does not work ({type(error).__name__}: {first_line(error)}); a size that every "
            "layer can take is needed. Choose another one."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return dimensions, [*outputs, ("", output)]


def _difference(wanted: Sequence[tuple[str, Any]], got: Sequence[tuple[str, Any]]) -> float:
    """Return the largest relative difference; infinite where the runs can't be compared."""
    if [name for name, _ in wanted] != [name for name, _ in got]:
        return float("inf")
    ones, others = tree_leaves([x for _, x in wanted]), tree_leaves([x for _, x in got])
    if len(ones) != len(others):
        return float("inf")
    return max(map(_relative, ones, others))


def _relative(one: Any, other: Any) -> float:
    if not isinstance(one, Tensor) or not one.is_floating_point() or one.numel() == 0:
        return 0.0
    if one.shape != other.shape or not one.isfinite().all():
        return float("inf")
    scale = one.abs().max()
    return float((one - other).abs().max() / torch.where(scale > 0, scale, 1))


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
