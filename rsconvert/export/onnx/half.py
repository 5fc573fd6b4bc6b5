"""An ONNX model whose weights and arithmetic are float16, while its input and output stay float32."""

from typing import Any

import numpy as np

from rsconvert.errors import UnsupportedModelError
from rsconvert.export.opening import needed

__all__ = ["halve"]


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
