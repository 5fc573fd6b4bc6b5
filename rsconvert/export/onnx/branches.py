"""An ONNX model with a branch for each of some resolutions, in which a runtime folds BatchNorm into convolutions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsconvert.export.onnx.one_table import TABLE
from rsconvert.export.opening import needed

__all__ = ["branch"]

_DOMAIN = "rsconvert"
# The colon in the names that are made here keeps them apart from those of modules.


def branch(model: Any, weights: Sequence[Sequence[float]]) -> None:
    """Make the body of a model of ``graph_of_one_table`` a function, in place, that B + 1 branches call.

    In the branch of a resolution the BN tensors are its weights times their rows of the table: constant, so that a
    runtime folds them into the convolutions when it opens the file. In the last branch, of all other sizes, they are
    data. Weights, table and body are stored once.

    Args:
        model: an ``onnx.ModelProto``.
        weights: those of the S sets, at each of B resolutions.
    """
    onnx, graph, parts = needed("onnx"), model.graph, _parts(model.graph)
    opset = next(entry for entry in model.opset_import if not entry.domain)
    body = onnx.helper.make_function(_DOMAIN, "Body", parts.inputs, [graph.output[0].name], parts.body, [opset])
    model.functions.append(body)
    model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    branches = [[*_row(i), *_call(parts, f"branch:{i}", f"row:{i}")] for i in range(len(weights))]
    others = [*parts.mixing, *_call(parts, "branch:others", parts.split.input[0])]
    choice = _choice("known:", _tree(branches), others)
    choice.output[0] = graph.output[0].name
    del graph.node[:]
    graph.node.extend([*parts.weighing, *_tests(parts.given, len(weights)), choice])
    table = next(tensor for tensor in graph.initializer if tensor.name == TABLE)
    numbers = _numbers(np.asarray(weights, onnx.helper.tensor_dtype_to_np_dtype(table.data_type)))
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in numbers.items())


@dataclass(frozen=True)
class _Parts:
    """The nodes of a graph: from the images to the weights of the sets, on to one row, its cut, and all the rest."""

    weighing: list[Any]
    mixing: list[Any]
    split: Any
    body: list[Any]
    given: str  # the weights
    inputs: list[str]  # of the body
    kernels: list[str]  # those of them that are weights and biases of convolutions


def _parts(graph: Any) -> _Parts:
    split = next(n for n in graph.node if n.op_type == "Split" and TABLE in _sources(graph, n.input))
    before = _sources(graph, split.input)
    first = [n for n in graph.node if before.intersection(n.output)]
    mixing = [n for n in first if TABLE in _sources(graph, n.input)]
    body = [n for n in graph.node if n != split and n not in first]
    own = {name for n in body for name in n.output}
    inputs = list(dict.fromkeys(name for n in body for name in n.input if name and name not in own))
    convolved = {name for n in body if n.op_type in ("Conv", "ConvTranspose") for name in n.input[1:]}
    return _Parts(
        weighing=[n for n in first if n not in mixing],
        mixing=mixing,
        split=split,
        body=body,
        given=next(name for n in mixing for name in n.input if TABLE in n.input and name != TABLE),
        inputs=inputs,
        kernels=[tensor.name for tensor in graph.initializer if tensor.name in convolved],
    )


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


def _node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    return needed("onnx").helper.make_node(kind, inputs, outputs, **attributes)


def _choice(condition: str, then: Sequence[Any], otherwise: Sequence[Any]) -> Any:
    """Return the node that runs one of two lists of nodes, and gives what the last of them does."""
    helper = needed("onnx").helper

    def graph(way: str, nodes: Sequence[Any]) -> Any:
        output = helper.make_empty_tensor_value_info(nodes[-1].output[0])
        return helper.make_graph(nodes, f"{condition}{way}", [], [output])

    ways = graph("then", then), graph("else", otherwise)
    return _node("If", [condition], [f"logits:{condition}"], then_branch=ways[0], else_branch=ways[1])


def _row(place: int) -> list[Any]:
    rows = _node("Gather", [TABLE, f"sets:{place}"], [f"rows:{place}"], axis=0)
    return [rows, _node("MatMul", [f"weights:{place}", f"rows:{place}"], [f"row:{place}"])]


def _call(parts: _Parts, name: str, row: str) -> list[Any]:
    """Return the call of the body on BN tensors cut from a row."""
    pieces = {piece: f"{name}:{piece}" for piece in parts.split.output}
    cut = _node("Split", [row, *parts.split.input[1:]], [*pieces.values()], name=f"{name}:cut")
    cut.attribute.extend(parts.split.attribute)
    # ONNX Runtime lays out anew, in blocks of channels, only weights of the branch's own: hence a copy that it
    # computes when it opens the file. It would drop an Identity; a Max of one it computes.
    copies = {kernel: f"{name}:{kernel}" for kernel in parts.kernels}
    given = [(pieces | copies).get(value, value) for value in parts.inputs]
    body = _node("Body", given, [f"{name}:logits"], name=f"{name}:body", domain=_DOMAIN)
    return [cut, *(_node("Max", [kernel], [copy]) for kernel, copy in copies.items()), body]


def _tree(branches: Sequence[list[Any]], first: int = 0) -> list[Any]:
    """Return the nodes that compute one of the branches, by halves: a file may not nest deep."""
    if len(branches) == 1:
        return branches[0]
    half = len(branches) // 2
    ways = _tree(branches[:half], first), _tree(branches[half:], first + half)
    return [_choice(f"below:{first + half}", *ways)]


def _tests(given: str, count: int) -> list[Any]:
    """Return what finds the branch of the input's size. Weights of two sides differ by far more than ``near``."""
    return [
        _node("Sub", ["weights:", given], ["differences:"]),
        _node("Abs", ["differences:"], ["sizes:"]),
        _node("ReduceMax", ["sizes:", "axis:"], ["distances:"], keepdims=0),
        _node("ReduceMin", ["distances:"], ["distance:"], keepdims=0),
        _node("Less", ["distance:", "near:"], ["known:"]),
        _node("ArgMin", ["distances:"], ["place:"], keepdims=0),
        *(_node("Less", ["place:", f"place:{i}"], [f"below:{i}"]) for i in range(1, count)),
    ]


def _numbers(weights: Any) -> dict[str, Any]:
    """Return what the nodes read, by name, for weights (B, S); a set of weight 0 is not among those of a branch."""
    numbers = {"weights:": weights, "near:": np.asarray(1e-6, weights.dtype), "axis:": np.array([1])}
    numbers |= {f"place:{i}": np.array(i) for i in range(1, len(weights))}
    for i, row in enumerate(weights):
        (sets,) = np.nonzero(row)
        numbers |= {f"sets:{i}": sets, f"weights:{i}": row[sets]}
    return numbers
