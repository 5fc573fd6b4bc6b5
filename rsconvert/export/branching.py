"""An ONNX model with a branch for each trained resolution, in which a runtime folds BatchNorm into convolutions."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rsconvert.export.one_table import TABLE
from rsconvert.export.opening import needed

__all__ = ["branch"]

_DOMAIN = "rsconvert"


def branch(model: Any, sets: int) -> None:
    """Make the body of a model of ``graph_of_one_table`` a function, in place, that S + 1 branches call.

    In the branch of a trained resolution the BN tensors are a row of the table: constant, so that a runtime folds
    them into the weights when it opens the file. The last branch takes them interpolated. Weights, table and body are
    stored once.

    Args:
        model: an ``onnx.ModelProto``.
        sets: S.
    """
    helper, graph = needed("onnx").helper, model.graph
    split = next(n for n in graph.node if n.op_type == "Split" and TABLE in _sources(graph, n.input))
    before = _sources(graph, split.input)
    shared = [n for n in graph.node if before.intersection(n.output)]
    body = [n for n in graph.node if n != split and not before.intersection(n.output)]
    own = {name for n in body for name in n.output}
    inputs = list(dict.fromkeys(name for n in body for name in n.input if name and name not in own))
    logits = graph.output[0]
    opset = next(entry for entry in model.opset_import if not entry.domain)
    model.functions.append(helper.make_function(_DOMAIN, "Body", inputs, [logits.name], body, [opset]))
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))

    def graph_of(name: str, nodes: list[Any]) -> Any:
        out = helper.make_tensor_value_info(nodes[-1].output[0], logits.type.tensor_type.elem_type, None)
        return helper.make_graph(nodes, name, [], [out])

    # ONNX Runtime lays out anew, in blocks of channels, only weights of the branch's own: hence a copy that it
    # computes when it opens the file. It would drop an Identity; a Max of one it computes.
    kernels = [tensor.name for tensor in graph.initializer if tensor.name in inputs and len(tensor.dims) > 2]
    copies = [helper.make_node("Max", [kernel], [f"between.{kernel}"]) for kernel in kernels]
    call = _call(helper, split, inputs, "between")
    call[-1].input[:] = [f"between.{name}" if name in kernels else name for name in call[-1].input]
    rest = graph_of("between", copies + call)
    weights = next(name for n in shared if TABLE in n.input for name in n.input if name != TABLE)
    tests = _tests(helper, weights, sets)
    for place in reversed(range(sets)):
        row = helper.make_node("Gather", [TABLE, f"place.{place}"], [f"row.{place}"], axis=0)
        trained = graph_of(f"set.{place}", [row, *_call(helper, split, inputs, f"set.{place}", row.output[0])])
        name = logits.name if place == 0 else f"logits.{place}"
        choice = helper.make_node("If", [f"alone.{place}"], [name], then_branch=trained, else_branch=rest)
        rest = graph_of(f"after.{place}", [choice])
    del graph.node[:]
    graph.node.extend([*shared, *tests, choice])
    numbers = {"one": np.float32(1), "flat": np.array([-1]), **{f"place.{i}": np.array(i) for i in range(sets)}}
    graph.initializer.extend(needed("onnx").numpy_helper.from_array(np.asarray(v), k) for k, v in numbers.items())


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


def _tests(helper: Any, weights: str, sets: int) -> list[Any]:
    """Return what tells of each set whether it serves alone, as it does at its resolution and beyond the ends."""
    return [
        helper.make_node("Equal", [weights, "one"], ["alone.all"]),
        helper.make_node("Reshape", ["alone.all", "flat"], ["alone"]),
        *(helper.make_node("Gather", ["alone", f"place.{i}"], [f"alone.{i}"], axis=0) for i in range(sets)),
    ]


def _call(helper: Any, split: Any, inputs: Sequence[str], name: str, row: str | None = None) -> list[Any]:
    """Return the call of the body on BN tensors cut from a row, by default from the interpolated one."""
    pieces = {piece: f"{name}.{piece}" for piece in split.output}
    cut = helper.make_node("Split", [row or split.input[0], *split.input[1:]], [*pieces.values()], name=f"{name}.cut")
    cut.attribute.extend(split.attribute)
    given = [pieces.get(value, value) for value in inputs]
    return [cut, helper.make_node("Body", given, [f"{name}.logits"], name=f"{name}.body", domain=_DOMAIN)]
