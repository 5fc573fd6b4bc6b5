"""FloatWeights: the float weights behind quantized ones while a network trains, and the bases that follow them.

A quantized convolution multiplies by weights on its levels, and gradients reach these unchanged. The optimizer steps
the float weights with them: they take the place of the quantized ones for the step, after which these are made anew.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rsconvert.errors import ConfigError
from rsconvert.quantization import (
    ActivationQuantizer,
    QuantizationReport,
    QuantizedConv2d,
    activation_quantizers,
    average_basis,
    basis_of_average,
    fit_filters,
    layout_of,
    parse_bits,
    quantize_,
    quantize_filters,
    quantized_convolutions,
)
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel

__all__ = ["FloatWeights", "drop_float_weights", "quantize_for", "requantize"]

_FLOAT = "float_weight"


class FloatWeights:
    """Holds the float weights of a network's quantized convolutions that learn, as buffers of theirs.

    Once a step the basis of each filter is fitted to its float weights by the codes that they have, and the fit taken
    into its average (LQ-Nets, Sec. 3.2). The bases of activations become what the forwards since the last step
    averaged, in all processes the same.

    Args:
        net: with its ``requires_grad`` flags as training needs them.
        mean: gives a tensor's mean over the processes that train together; None for one process.
    """

    def __init__(self, net: SwitchableModel, mean: Callable[[Tensor], Tensor] | None = None) -> None:
        self._net, self._mean = net, mean
        self._convs = [conv for conv in quantized_convolutions(net).values() if conv.weight.requires_grad]
        for conv in self._convs:
            if _FLOAT not in conv._buffers:
                conv.register_buffer(_FLOAT, conv.weight.detach().clone())

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Within it the weights are the float ones, for the optimizer; afterwards weights and bases are new."""
        with torch.no_grad():
            for conv in self._convs:
                _follow(conv)
                conv.weight.copy_(conv.get_buffer(_FLOAT))
        yield
        with torch.no_grad():
            for conv in self._convs:
                conv.get_buffer(_FLOAT).copy_(conv.weight)
            requantize(self._net)
            self._refresh()

    def _refresh(self) -> None:
        quantizers = [q for q in activation_quantizers(self._net.running_modules()) if q.training]
        if quantizers and self._mean is not None:
            _average(quantizers, self._mean)
        for quantizer in quantizers:
            quantizer.refresh()


def _follow(conv: QuantizedConv2d) -> None:
    filters = conv.get_buffer(_FLOAT).reshape(len(conv.weight), -1)
    average_basis(conv.weight_moment, fit_filters(filters, conv.weight_basis), conv.weight_updates)
    conv.weight_basis.copy_(basis_of_average(conv.weight_moment, conv.weight_updates))


def _average(quantizers: list[ActivationQuantizer], mean: Callable[[Tensor], Tensor]) -> None:
    """Give all processes the mean of their averages: one exchange for all layers."""
    flat = mean(torch.cat([quantizer.moment for quantizer in quantizers]))
    parts = torch.split(flat, [len(quantizer.moment) for quantizer in quantizers])
    for quantizer, part in zip(quantizers, parts, strict=True):
        quantizer.moment.copy_(part)


@torch.no_grad()
def requantize(net: nn.Module) -> None:
    """Put the weights of convolutions that learn on their levels, from the float ones; also those of an average."""
    for conv in quantized_convolutions(net).values():
        if _FLOAT in conv._buffers:
            conv.weight.copy_(quantize_filters(conv.get_buffer(_FLOAT), conv.weight_basis))


def drop_float_weights(net: nn.Module) -> None:
    """Leave the quantized weights alone, as a file holds them."""
    for conv in quantized_convolutions(net).values():
        if _FLOAT in conv._buffers:
            delattr(conv, _FLOAT)


def quantize_for(net: SwitchableModel, config: FinetuneConfig) -> QuantizationReport | None:
    """Quantize a network as the settings ask; None if they do not, or if it is quantized so already.

    Raises:
        ConfigError: a setting does not fit a quantized network.
        UnsupportedModelError: it has no convolution to quantize.
    """
    asked = config.bits is not None and (config.keep_float is not None or not _is_quantized_so(net, config))
    bases = config.activation_bases or "shared"
    if config.start_share and (asked or layout_of(net)):
        raise ConfigError(
            f"start_share is {config.start_share} for a quantized network, whose mixture with its start has more "
            "levels than its bits; 0 is accepted. Leave it out."
        )
    return quantize_(net, str(config.bits), keep_float=config.keep_float, activation_bases=bases) if asked else None


def _is_quantized_so(net: SwitchableModel, config: FinetuneConfig) -> bool:
    """Return whether a network has the bits that are asked; activations may stay float where no code fits them."""
    weights, activations = parse_bits(str(config.bits))
    found = set(layout_of(net).values())
    private = any(".activation." in name for name in net.other_private_tensors())
    return (weights, activations) in found <= {(weights, activations), (weights, 32)} and private == (
        config.activation_bases == "private"
    )
