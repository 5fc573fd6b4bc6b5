"""Quantized switchable networks: weights and activations of few bits, shared by all resolutions.

float network → `quantize_` → `finetune` → file with packed codes
"""

from rsconvert.quantization.conversion import (
    QuantizationReport,
    build_quantized,
    layout_of,
    quantize_,
    quantize_layers,
)
from rsconvert.quantization.layers import (
    FLOAT_BITS,
    TRAINING_BUFFERS,
    ActivationQuantizer,
    QuantizedConv2d,
    activation_quantizers,
    can_quantize,
    dequantize_,
    fit_filters,
    quantized_convolutions,
)
from rsconvert.quantization.lq import average_basis, basis_of_average, quantize_filters
from rsconvert.quantization.packing import pack_weight, packed_bytes, unpack_weight
from rsconvert.quantization.selection import parse_bits

__all__ = [
    "FLOAT_BITS",
    "TRAINING_BUFFERS",
    "ActivationQuantizer",
    "QuantizationReport",
    "QuantizedConv2d",
    "activation_quantizers",
    "average_basis",
    "basis_of_average",
    "build_quantized",
    "can_quantize",
    "dequantize_",
    "fit_filters",
    "layout_of",
    "pack_weight",
    "packed_bytes",
    "parse_bits",
    "quantize_",
    "quantize_filters",
    "quantize_layers",
    "quantized_convolutions",
    "unpack_weight",
]
