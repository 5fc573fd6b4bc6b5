"""halve: float16 inside, float32 outside; the numbers that float16 does not hold."""

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from rsconvert.errors import UnsupportedModelError
from rsconvert.export.onnx.half import halve

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def model(weights: np.ndarray) -> ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["images", "weights"], ["logits"], transB=1)],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_weights_are_rounded_to_float16() -> None:
    made = halve(model(WEIGHTS))
    (held,) = made.graph.initializer
    assert np.array_equal(numpy_helper.to_array(held), WEIGHTS.astype(np.float16))
    x = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": x})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, x @ WEIGHTS.T, rtol=5e-3, atol=5e-3)
    assert not np.array_equal(found, x @ WEIGHTS.T)


def test_a_number_beyond_the_range_is_named() -> None:
    large = WEIGHTS.copy()
    large[1, 2] = -7e4
    with pytest.raises(UnsupportedModelError, match=r"^weights holds 7e\+04; float16 ends at 65504\. Export in"):
        halve(model(large))
