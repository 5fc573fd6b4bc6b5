"""An ONNX model whose weights and arithmetic are float16, while its input and output stay float32."""

from typing import Any

import numpy as np
from torch import nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.export.opening import needed
from rsconvert.quantization import FLOAT_BITS, quantized_convolutions

__all__ = ["check_half", "halve"]


def check_half(net: nn.Module) -> None:
    """Raise an UnsupportedModelError for float16 of a network whose activations have few bits."""
    for name, conv in quantized_convolutions(net).items():
        weights, activations = conv.bits
        if activations != FLOAT_BITS:
            raise UnsupportedModelError(
                f"{name} quantizes activations ({weights}/{activations} bits); in float16 some pass a threshold "
                "and get another level, so the file would be another network. Export in float32."
            )


def halve(model: Any) -> Any:
    """Return an ``onnx.ModelProto`` without subgraphs in float16, by ONNX Runtime's converter.

    Raises:
        UnsupportedModelError: a number is beyond the range of float16.
    """
    onnx, limits = needed("onnx"), np.finfo(np.float16)
    most = float(limits.max)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size and (largest := float(abs(values).max())) > most:
            raise UnsupportedModelError(
                f"{tensor.name} holds {largest:.3g}; float16 ends at {most:.0f}. Export in float32."
            )
    converter = needed("onnxruntime.transformers.float16")
    smallest = float(limits.smallest_subnormal)
    return converter.convert_float_to_float16(model, keep_io_types=True, min_positive_val=smallest, max_finite_val=most)
