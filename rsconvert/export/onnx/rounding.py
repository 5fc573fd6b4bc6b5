"""Weights on the grid of 8 bits: each filter of a network rounded once, for all of its paths."""

import copy

import torch
from timm.layers import Conv2dSame
from timm.layers import Linear as TimmLinear
from torch import Tensor, nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.quantization import quantized_convolutions
from rsconvert.surgery import SwitchableModel

__all__ = ["LEVELS", "REDUCED", "round_filters", "with_rounded_weights"]

LEVELS, REDUCED = 127, 64
"""The largest integer of a weight: of 8 bits, and of the 7 that processors without VNNI multiply without overflow."""

# Whose weights a convolution or product reads as they are; ConvTranspose has its filters on another axis.
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv2dSame, nn.Linear, TimmLinear)


@torch.no_grad()
def with_rounded_weights(net: SwitchableModel, levels: int = LEVELS) -> SwitchableModel:
    """Return a copy of a network whose convolutions and linear layers have integers times a scale per filter.

    A BatchNorm folded into such a layer multiplies the scales, γ/σ, and leaves the integers: a quantizer that takes the
    largest magnitude of a filter for ``levels`` finds the same integers on every path, negated where γ is negative.

    Raises:
        UnsupportedModelError: a convolution is quantized already.
    """
    if few := quantized_convolutions(net.at(net.native)):
        raise UnsupportedModelError(
            f"{next(iter(few))} holds weights of few bits already; int8 is made of float ones. Take the float network."
        )
    rounded = copy.deepcopy(net)
    done = set()
    for path in map(rounded.at, rounded.resolutions):
        for layer in path.modules():
            weight = layer.weight if type(layer) in _LAYERS else None
            if isinstance(weight, Tensor) and id(weight) not in done:
                weight.copy_(round_filters(weight, levels))
                done.add(id(weight))
    return rounded


def round_filters(weight: Tensor, levels: int) -> Tensor:
    """Return weights (N, …) rounded to multiples of max |w| / levels of each of the N filters.

    Of each filter those weights that are nearest to the middle of two multiples go to the other one until the errors of
    all add up to half a multiple at most: so inputs of one sign, as they come out of a ReLU, do not add them up.
    """
    exact = weight.double().flatten(1)
    scale = exact.abs().amax(1, keepdim=True) / levels
    steps = exact / scale.where(scale > 0, 1)
    errors = steps.round() - steps
    total = errors.sum(1, keepdim=True)
    # The weights of each filter, the largest error of the sign of the sum first.
    order = (errors * total.sign()).argsort(stable=True, dim=1, descending=True)
    integers = steps.round() - total.sign() * (order.argsort(1) < total.abs().round())
    return (integers * scale).view(weight.shape).to(weight.dtype)
