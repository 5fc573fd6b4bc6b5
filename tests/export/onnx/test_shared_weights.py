"""Weights of several ONNX models in one file: equal ones once, small ones where they were."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from rsconvert.errors import CheckpointError
from rsconvert.export.onnx.shared_weights import check_readers, share_weights


def model_of(weight: np.ndarray, shift: np.ndarray) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, len(weight)])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, weight.shape[1]])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])]
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(shift, "b")]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(30, 20)).astype(np.float32) for _ in range(2))
    shifts = rng.normal(size=(3, 20)).astype(np.float32)
    models = [model_of(w, b) for w, b in zip((first, first, second), shifts, strict=True)]
    share_weights(models, tmp_path / "all.weights")
    assert 2 * first.nbytes <= (tmp_path / "all.weights").stat().st_size < 2 * first.nbytes + 128
    x = rng.normal(size=(1, 30)).astype(np.float32)
    for i, (model, weight) in enumerate(zip(models, (first, first, second), strict=True)):
        onnx.save(model, tmp_path / f"{i}.onnx")
        assert (tmp_path / f"{i}.onnx").stat().st_size < 1000
        (got,) = onnxruntime.InferenceSession(str(tmp_path / f"{i}.onnx")).run(None, {"x": x})
        np.testing.assert_allclose(got, x @ weight + shifts[i], rtol=1e-5, atol=1e-5)


def test_weights_are_replaced_only_with_all_that_read_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    models = [model_of(rng.normal(size=(30, 20)).astype(np.float32), np.zeros(20, np.float32)) for _ in range(3)]
    onnx.save(models[2], tmp_path / "all-3.onnx")  # with its weights
    share_weights(models[:2], tmp_path / "all.weights")
    readers = [tmp_path / f"all-{i}.onnx" for i in (1, 2)]
    for model, path in zip(models, readers, strict=False):
        onnx.save(model, path)
    check_readers(tmp_path / "all.weights", readers)
    with pytest.raises(CheckpointError, match=r"all-2\.onnx reads its weights from .*all\.weights, which would be"):
        check_readers(tmp_path / "all.weights", readers[:1])
    check_readers(tmp_path / "other.weights", [])
