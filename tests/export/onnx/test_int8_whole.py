"""assembled: which branch runs, and what is stored once."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from rsconvert.export.onnx.int8_whole import assembled

SHARED = np.arange(6, dtype=np.float32).reshape(2, 3)


def model(bias: float) -> ModelProto:
    """Mean over the pixels, a shared product, a bias."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0),
            helper.make_node("Gemm", ["mean", "w", "b"], ["logits"], transB=1),
        ],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(SHARED, "w"),
            numpy_helper.from_array(np.full(2, bias, np.float32), "b"),
            numpy_helper.from_array(np.array([2, 3]), "axes"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("compact", [False, True])
def test_the_nearest_branch_runs(compact: bool) -> None:
    made = assembled({40: model(40.0), 20: model(20.0), 64: model(64.0)}, compact=compact)
    onnx.checker.check_model(made)
    assert (made.ir_version, made.opset_import[0].version) == (8, 18)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    cases = {20: 20, 30: 20, 31: 40, 40: 40, 52: 40, 53: 64, 64: 64, 200: 64, 5: 20}
    for side, branch in cases.items():
        (found,) = session.run(None, {"images": np.ones((1, 3, side, side), np.float32)})
        np.testing.assert_allclose(found[0], SHARED.sum(1) + branch)
    (oblong,) = session.run(None, {"images": np.ones((1, 3, 64, 16), np.float32)})  # counts as 32
    np.testing.assert_allclose(oblong[0], SHARED.sum(1) + 40)


def test_equal_tensors_are_stored_once_and_copied_unless_compact() -> None:
    for compact, copies in ((False, 3), (True, 0)):
        made = assembled({side: model(float(side)) for side in (64, 40, 20)}, compact=compact)
        shapes = [tuple(t.dims) for t in made.graph.initializer if t.data_type == TensorProto.FLOAT]
        assert sorted(shapes) == [(2,), (2,), (2,), (2, 3)]
        assert str(made).count('op_type: "Concat"') == copies
