"""Convolutions whose weights lie on the levels of a basis per filter, and whose inputs may be quantized as well.

A quantized convolution is a convolution of its class: ``weight`` holds the values that it multiplies by. What training
needs of it beyond that, the float weights among it, is ``rsconvert.training``'s.
"""

from collections.abc import Iterable
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.quantization.lq import (
    average_basis,
    basis_of_average,
    code_levels,
    fit_basis,
    grid_of,
    initial_activation_basis,
    initial_weight_basis,
    nearest,
    quantize_filters,
    step_function,
)

__all__ = [
    "FLOAT_BITS",
    "TRAINING_BUFFERS",
    "ActivationQuantizer",
    "QuantizedConv2d",
    "activation_quantizers",
    "can_quantize",
    "dequantize_",
    "fit_filters",
    "fit_weights",
    "quantize_layer",
    "quantized_convolutions",
    "restore_layer",
]

# Buffers of a convolution that training needs and a file leaves out; the last one is there while training lasts.
TRAINING_BUFFERS = ("weight_moment", "weight_updates", "float_weight")
# What stands for activations that stay as they are.
FLOAT_BITS = 32
# Up to which comparisons find a level; they have a form in ONNX, which a search has not.
_FEW_BITS = 4


class ActivationQuantizer(nn.Module):
    """Put non-negative activations on the 2^K levels of one basis.

    Each forward in train mode fits the basis to its input and takes the fit into a moving average; the levels stay what
    they are until `refresh`, so that all views of a step meet the same. Gradient: 1 up to the top level, 0 above.
    """

    basis: Tensor
    moment: Tensor
    updates: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.register_buffer("basis", initial_activation_basis(bits))
        self.register_buffer("moment", torch.zeros(bits))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self._quantized(x)
        return _PassedUpTo.apply(x, y, code_levels(self.basis, signed=False).amax()) if x.requires_grad else y

    def _quantized(self, x: Tensor) -> Tensor:
        values = x.to(self.basis.dtype)
        if not self.training and len(self.basis) <= _FEW_BITS:
            return step_function(values, self.basis).to(x.dtype)
        grid = grid_of(self.basis, signed=False)
        places = nearest(values, grid)
        if self.training:
            self._average(x, grid.codes[places])
        return grid.levels[places].to(x.dtype)

    def _average(self, x: Tensor, codes: Tensor) -> None:
        with torch.autocast(x.device.type, enabled=False):
            values = x.detach().to(self.basis.dtype).flatten()
            fitted = fit_basis(values, codes.flatten(), self.basis, signed=False)
        average_basis(self.moment, fitted, self.updates)

    @torch.no_grad()
    def refresh(self) -> None:
        """Let the levels be those of the average so far, if there is one."""
        if self.updates > 0:
            self.basis.copy_(basis_of_average(self.moment, self.updates))

    def extra_repr(self) -> str:
        return f"bits={len(self.basis)}"


class _PassedUpTo(torch.autograd.Function):
    """Give ``y``, with the gradient of ``x`` where that is at most ``top``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, top: Tensor) -> Tensor:
        ctx.save_for_backward(x <= top)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (passed,) = ctx.saved_tensors
        return gradients[0] * passed, None, None


class QuantizedConv2d(nn.Conv2d):
    """A convolution whose filters lie on the levels of ``weight_basis``, (out, K); ``activation`` is None.

    It computes as its class does. Its weight changes in training alone: see ``rsconvert.finetune`` with ``bits``.
    """

    weight_basis: Tensor
    weight_moment: Tensor
    weight_updates: Tensor
    activation: ActivationQuantizer | None

    @property
    def bits(self) -> tuple[int, int]:
        """The bits of a weight and of an activation, 32 for one that stays as it is."""
        return self.weight_basis.shape[1], FLOAT_BITS if self.activation is None else len(self.activation.basis)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bits={self.weight_basis.shape[1]}"  # type: ignore[no-untyped-call]


class LowBitConv2d(QuantizedConv2d):
    """`QuantizedConv2d` whose ``activation`` quantizes its input."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input if self.activation is None else self.activation(input))


class QuantizedConv2dSame(QuantizedConv2d, Conv2dSame):  # type: ignore[misc]  # timm's types are skipped
    """`QuantizedConv2d` with the padding of TensorFlow, which timm's convolution of this name has."""


class LowBitConv2dSame(LowBitConv2d, Conv2dSame):  # type: ignore[misc]  # timm's types are skipped
    """`LowBitConv2d` with the padding of TensorFlow."""


# Of a class: that with few-bit weights, which inherits its forward, and that with few-bit activations, too.
_CLASSES: dict[type[nn.Module], tuple[type[QuantizedConv2d], type[QuantizedConv2d]]] = {
    nn.Conv2d: (QuantizedConv2d, LowBitConv2d),
    Conv2dSame: (QuantizedConv2dSame, LowBitConv2dSame),
}


def can_quantize(module: nn.Module) -> bool:
    """Return whether a module is a convolution, quantized or not, of a class that uses its weight as it is."""
    return type(module) in _CLASSES or isinstance(module, QuantizedConv2d)


def quantize_layer(conv: nn.Module, weight_bits: int, activation_bits: int) -> QuantizedConv2d:
    """Make a convolution a quantized one in place, with bases that wait for their values; return it."""
    if isinstance(conv, QuantizedConv2d):
        restore_layer(conv)
    conv.__class__ = _CLASSES[type(conv)][activation_bits != FLOAT_BITS]
    assert isinstance(conv, QuantizedConv2d)
    weight = conv.weight.detach()
    conv.register_buffer("weight_basis", weight.new_zeros(len(weight), weight_bits))
    conv.register_buffer("weight_moment", weight.new_zeros(len(weight), weight_bits))
    conv.register_buffer("weight_updates", torch.zeros((), dtype=torch.int64, device=weight.device))
    quantizer = None if activation_bits == FLOAT_BITS else ActivationQuantizer(activation_bits).to(weight)
    conv.register_module("activation", None if quantizer is None else quantizer.train(conv.training))
    return conv


@torch.no_grad()
def fit_weights(conv: QuantizedConv2d, *, iterations: int = 30) -> None:
    """Fit the bases to the convolution's weights by codes and least squares in turn, and put the weights on them."""
    filters = conv.weight.reshape(len(conv.weight), -1)
    basis = initial_weight_basis(filters.square().mean(1).sqrt(), conv.weight_basis.shape[1])
    for _ in range(iterations):
        before, basis = basis, fit_filters(filters, basis)
        if torch.allclose(before, basis, rtol=1e-4, atol=0):
            break
    conv.weight_basis.copy_(basis)
    conv.weight.copy_(quantize_filters(conv.weight, basis))


def fit_filters(filters: Tensor, basis: Tensor) -> Tensor:
    """Return the bases (out, K) fitted once to filters (out, n), with the codes that they have by ``basis``."""
    grid = grid_of(basis, signed=True)
    return fit_basis(filters, grid.codes.gather(1, nearest(filters, grid)), basis, signed=True)


def quantized_convolutions(model: nn.Module) -> dict[str, QuantizedConv2d]:
    """Return the quantized convolutions of a network or a plain model by name, each once."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedConv2d)}


def activation_quantizers(modules: Iterable[nn.Module]) -> list[ActivationQuantizer]:
    """Return the quantizers of activations among modules that run."""
    return [module for module in modules if isinstance(module, ActivationQuantizer)]


def dequantize_(model: nn.Module) -> nn.Module:
    """Give a plain model back the classes of its convolutions, in place; the weights stay on their levels.

    Raises:
        UnsupportedModelError: it quantizes activations, which no ordinary convolution does.
    """
    for name, conv in quantized_convolutions(model).items():
        if conv.activation is not None:
            weights, activations = conv.bits
            raise UnsupportedModelError(
                f"{name} quantizes activations ({weights}/{activations} bits), which no ordinary convolution does; "
                f"weights alone ({weights}/32) are accepted. Export it as a program or to ONNX."
            )
        restore_layer(conv)
    return model


def restore_layer(conv: QuantizedConv2d) -> None:
    """Make a quantized convolution an ordinary one in place, with the weight that it has."""
    plain: Any = next(plain for plain, own in _CLASSES.items() if type(conv) in own)
    conv.__class__ = plain
    for key in [key for key in conv._buffers if key in TRAINING_BUFFERS or key == "weight_basis"]:
        del conv._buffers[key]
    del conv._modules["activation"]
