"""The choice by the input's size: the resolution that inputs count as, and the list of nodes that runs."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from rsconvert.export.onnx.routing import STEP, choosing, counting, limit, node, tensor


def ran(nodes: list, tensors: list, output: str, shape: tuple[int, ...]) -> np.ndarray:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [None] * 4)],
        [helper.make_tensor_value_info(output, TensorProto.INT64, [])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return ReferenceEvaluator(model).run(None, {"images": np.zeros(shape, np.float32)})[0]


def test_the_limit_of_a_resolution_is_that_of_rounding() -> None:
    areas = torch.arange(1, 100_000, dtype=torch.float64)
    rounded = areas.sqrt().round()
    for resolution in (1, 2, 31, 160, 223):
        assert limit(resolution) == int(areas[rounded <= resolution].max())


@pytest.mark.parametrize("shape", [(64, 64), (20, 20), (100, 90), (48, 32), (40, 40), (33, 47), (39, 40), (40, 42)])
def test_an_input_exceeds_the_resolutions_below_its_own(shape: tuple[int, int]) -> None:
    resolutions = [32, 40, 41, 63]
    found = ran(*counting(resolutions), STEP, (1, 3, *shape))
    side = round((shape[0] * shape[1]) ** 0.5)
    assert found == sum(side > resolution for resolution in resolutions)


def test_a_large_image_does_not_overflow() -> None:
    assert ran(*counting([70_000, 70_001]), STEP, (0, 3, 70_001, 70_001)) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_the_list_that_is_named_runs(count: int) -> None:
    places = [(7 * i) % count for i in range(4)]
    leaves = [[node("Add", [f"number:{i}", "one"], [f"leaf:{i}"])] for i in range(count)]
    numbers = [tensor(np.array(10 * i), f"number:{i}") for i in range(count)]
    steps, limits = counting([10, 20, 30])
    chosen, tensors = choosing(places, leaves, "result")
    for step, side in enumerate((10, 20, 30, 40)):
        given = [*limits, *tensors, *numbers, tensor(np.array(1), "one")]
        assert ran([*steps, *chosen], given, "result", (1, 3, side, side)) == 10 * places[step] + 1
