"""quantized: the integers and scales of a hand-made model; what it refuses; integers that several models share."""

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from rsconvert.errors import CheckpointError, UnsupportedModelError
from rsconvert.export.onnx.quantized import equal_integers, quantized

INTEGERS = np.random.default_rng(0).integers(-127, 128, (4, 3, 3, 3))
INTEGERS[:, 0, 0, 0] = 127
SCALES = np.array([0.5, 0.01, 0.02, 3.0])
RANGES = {"images": (-2.0, 3.0), "logits": (-500.0, 700.0)}


def model(factors: np.ndarray = SCALES, kind: str = "Conv") -> ModelProto:
    weights = (INTEGERS * factors.reshape(4, 1, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(kind, ["images", "w"] if kind == "Conv" else ["images"], ["logits"], name="first")],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4, "h", "w"])],
        [numpy_helper.from_array(weights, "w")] if kind == "Conv" else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def held(made: ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}


def test_weights_on_the_grid_keep_their_integers_and_scales() -> None:
    made = held(quantized(model(), RANGES))
    (integers,) = [values for values in made.values() if values.dtype == np.int8 and values.ndim == 4]
    assert np.array_equal(integers, INTEGERS)
    (scales,) = [values for values in made.values() if values.dtype == np.float32 and values.shape == (4,)]
    np.testing.assert_allclose(scales, SCALES, rtol=1e-6)
    # uint8 activations: 255 steps from the smallest to the largest value.
    steps = sorted(float(values) for values in made.values() if values.dtype == np.float32 and values.ndim == 0)
    np.testing.assert_allclose(steps, [5 / 255, 1200 / 255], rtol=1e-6)


def test_it_computes_what_integers_do() -> None:
    made = quantized(model(), RANGES)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    steps = np.random.default_rng(1).integers(0, 256, (1, 3, 3, 3))
    x = (steps - 102) * 5 / 255  # zero is the step 102
    (found,) = session.run(None, {"images": x.astype(np.float32)})
    expected = (INTEGERS * SCALES.reshape(4, 1, 1, 1) * x).sum((1, 2, 3))
    np.testing.assert_allclose(found[0, :, 0, 0], expected.clip(-500, 700), atol=1200 / 255)


def test_integers_of_other_models_are_counted() -> None:
    made = [quantized(model(SCALES * factor), RANGES) for factor in (1.0, 7.0, np.array([1, 2, -3, 4]))]
    assert equal_integers(made[:2]) == (108, 108)
    assert equal_integers(made) == (81 + int((INTEGERS[2] == 0).sum()), 108)
    assert equal_integers(made[:1]) == (108, 108)


def test_ranges_of_another_graph_are_refused_in_one_line() -> None:
    with pytest.raises(
        CheckpointError, match=r"ranges in the checkpoint are .* Run rsconvert quantize again"
    ) as caught:
        quantized(model(), {"other": (0.0, 1.0)})
    assert "\n" not in str(caught.value)


def test_a_network_with_nothing_to_quantize_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"no convolution or linear layer to quantize, but Relu; int8"):
        quantized(model(kind="Relu"), RANGES)
