"""An ONNX model with a branch for each of some resolutions, in which a runtime folds BatchNorm into convolutions."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rsconvert.export.one_table import TABLE
from rsconvert.export.opening import needed

__all__ = ["branch"]

_DOMAIN = "rsconvert"


def branch(model: Any, weights: Sequence[Sequence[float]]) -> None:
    """Make the body of a model of ``graph_of_one_table`` a function, in place, that B + 1 branches call.

    In the branch of a resolution the BN tensors are its weights times their rows of the table: constant, so that a
    runtime folds them into the convolutions when it opens the file. In the last branch, of all other sizes, they are
    data. Weights, table and body are stored once.

    Args:
        model: an ``onnx.ModelProto``.
        weights: those of the S sets, at each of B resolutions.
    """
    helper, graph = needed("onnx").helper, model.graph
    split = next(n for n in graph.node if n.op_type == "Split" and TABLE in _sources(graph, n.input))
    before = _sources(graph, split.input)
    mixing = [n for n in graph.node if before.intersection(n.output) and TABLE in _sources(graph, n.input)]
    shared = [n for n in graph.node if before.intersection(n.output) and n not in mixing]
    body = [n for n in graph.node if n != split and not before.intersection(n.output)]
    own = {name for n in body for name in n.output}
    inputs = list(dict.fromkeys(name for n in body for name in n.input if name and name not in own))
    logits = graph.output[0]
    opset = next(entry for entry in model.opset_import if not entry.domain)
    model.functions.append(helper.make_function(_DOMAIN, "Body", inputs, [logits.name], body, [opset]))
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    kernels = [tensor.name for tensor in graph.initializer if tensor.name in inputs and len(tensor.dims) > 2]

    def graph_of(name: str, nodes: list[Any]) -> Any:
        out = helper.make_tensor_value_info(nodes[-1].output[0], logits.type.tensor_type.elem_type, None)
        return helper.make_graph(nodes, name, [], [out])

    def call(name: str, row: str) -> list[Any]:
        return _call(helper, split, inputs, kernels, name, row)

    given = next(name for n in mixing for name in n.input if TABLE in n.input and name != TABLE)
    rest = graph_of("others", [*mixing, *call("others", split.input[0])])
    for place in reversed(range(len(weights))):
        rows = helper.make_node("Gather", [TABLE, f"sets.{place}"], [f"rows.{place}"], axis=0)
        row = helper.make_node("MatMul", [f"weights.{place}", rows.output[0]], [f"row.{place}"])
        alone = graph_of(f"branch.{place}", [rows, row, *call(f"branch.{place}", row.output[0])])
        name = logits.name if place == 0 else f"logits.{place}"
        choice = helper.make_node("If", [f"at.{place}"], [name], then_branch=alone, else_branch=rest)
        rest = graph_of(f"after.{place}", [choice])
    del graph.node[:]
    graph.node.extend([*shared, *_tests(helper, given, len(weights)), choice])
    table = next(tensor for tensor in graph.initializer if tensor.name == TABLE)
    numbers = _numbers(np.asarray(weights, helper.tensor_dtype_to_np_dtype(table.data_type)))
    graph.initializer.extend(needed("onnx").numpy_helper.from_array(v, k) for k, v in numbers.items())


def _sources(graph: Any, names: Iterable[str]) -> set[str]:
    """Return the values that some are computed from, themselves included."""
    makers = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += makers[name].input if name in makers else []
    return found


def _tests(helper: Any, given: str, count: int) -> list[Any]:
    """Return what tells of each branch whether the input has its size. Weights of two sides differ by far more."""
    return [
        helper.make_node("Sub", ["weights", given], ["differences"]),
        helper.make_node("Abs", ["differences"], ["distances"]),
        helper.make_node("ReduceMax", ["distances", "axis"], ["distance"], keepdims=0),
        helper.make_node("Less", ["distance", "near"], ["at"]),
        *(helper.make_node("Gather", ["at", f"place.{i}"], [f"at.{i}"], axis=0) for i in range(count)),
    ]


def _numbers(weights: Any) -> dict[str, Any]:
    """Return what the nodes read, by name, for weights (B, S); a set of weight 0 is not among those of a branch."""
    numbers = {"weights": weights, "near": np.asarray(1e-6, weights.dtype), "axis": np.array([1])}
    for place, row in enumerate(weights):
        (sets,) = np.nonzero(row)
        numbers |= {f"place.{place}": np.array(place), f"sets.{place}": sets, f"weights.{place}": row[sets]}
    return numbers


def _call(helper: Any, split: Any, inputs: Sequence[str], kernels: Sequence[str], name: str, row: str) -> list[Any]:
    """Return the call of the body on BN tensors cut from a row."""
    pieces = {piece: f"{name}.{piece}" for piece in split.output}
    cut = helper.make_node("Split", [row, *split.input[1:]], [*pieces.values()], name=f"{name}.cut")
    cut.attribute.extend(split.attribute)
    # ONNX Runtime lays out anew, in blocks of channels, only weights of the branch's own: hence a copy that it
    # computes when it opens the file. It would drop an Identity; a Max of one it computes.
    copies = {kernel: f"{name}.{kernel}" for kernel in kernels}
    copied = [helper.make_node("Max", [kernel], [copy]) for kernel, copy in copies.items()]
    given = [(pieces | copies).get(value, value) for value in inputs]
    body = helper.make_node("Body", given, [f"{name}.logits"], name=f"{name}.body", domain=_DOMAIN)
    return [cut, *copied, body]
