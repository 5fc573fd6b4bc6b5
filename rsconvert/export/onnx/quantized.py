"""A plain ONNX model in int8, by ONNX Runtime's quantizer, and what several of them have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rsconvert.errors import CheckpointError, UnsupportedModelError, one_line
from rsconvert.export.opening import needed

__all__ = ["QUANTIZED", "Ranges", "equal_integers", "quantized"]

Ranges = Mapping[str, tuple[float, float]]
"""The smallest and the largest value of each activation, by its name in the graph."""

QUANTIZED = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Concat", "Relu", "Clip", "MaxPool", "AveragePool"),
    *("GlobalAveragePool", "Flatten"),
)
"""The operators in int8. Gates and their products, a share of all time that is small, lose accuracy in it."""


def quantized(model: Any, ranges: Ranges, *, reduce_range: bool = False) -> Any:
    """Return an ``onnx.ModelProto`` in QDQ form: uint8 activations, int8 weights with a scale per filter.

    Args:
        model: a plain float32 model.
        reduce_range: weights of 7 bits.
    Raises:
        UnsupportedModelError: it has nothing to quantize.
        CheckpointError: the ranges are those of another graph.
    """
    onnx, tools = needed("onnx"), needed("onnxruntime.quantization")
    calibrate = needed("onnxruntime.quantization.calibrate")
    check_quantizable(model)
    copy = onnx.shape_inference.infer_shapes(model)
    values = {
        name: tools.calibrate.TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    found = calibrate.TensorsData(tools.CalibrationMethod.MinMax, values)
    kinds = tools.QuantType.QInt8, tools.QuantType.QUInt8
    quantizer = tools.QDQQuantizer(copy, True, reduce_range, *kinds, found, [], [], list(QUANTIZED), {})
    try:
        quantizer.quantize_model()
    except ValueError as error:  # of a tensor without a range
        raise CheckpointError(
            f"the ranges in the checkpoint are those of another graph ({one_line(error)[:120]}); the "
            "exporter of this version of torch names tensors in another way. Run rsconvert quantize again."
        ) from error
    quantizer.model.topological_sort()  # as a branch of an If must be
    return quantizer.model.model


def check_quantizable(model: Any) -> None:
    """Raise an UnsupportedModelError if a model has no convolution and no product."""
    kinds = {node.op_type for node in model.graph.node}
    if not kinds.intersection(("Conv", "ConvTranspose", "Gemm", "MatMul")):
        raise UnsupportedModelError(
            f"the network has no convolution or linear layer to quantize, but {', '.join(sorted(kinds))}; int8 needs "
            "at least one. Export in float32."
        )


def equal_integers(models: Sequence[Any]) -> tuple[int, int]:
    """Return how many int8 weights are the same in all models, and how many there are."""
    first, *others = map(_integers, models)
    same = {name: np.ones(values.shape, bool) for name, values in first.items()}
    for other in others:
        for name, values in first.items():
            same[name] &= values == other[name]
    return sum(int(each.sum()) for each in same.values()), sum(values.size for values in first.values())


def _integers(model: Any) -> dict[str, Any]:
    onnx = needed("onnx")
    kept = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in kept}
