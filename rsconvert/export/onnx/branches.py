"""The file that switches: its sets chosen by the size of the input, in branches with constant BatchNorms or as data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsconvert.export.onnx.one_table import TABLE
from rsconvert.export.onnx.routing import STEP, choosing, counting, node, tensor
from rsconvert.export.opening import needed
from rsconvert.surgery import interpolation_weights

__all__ = ["branch", "weigh_in_integers"]

_DOMAIN = "rsconvert"  # of the body, while it is a function


def weigh_in_integers(model: Any, resolutions: Sequence[int]) -> None:
    """Let a model of ``graph_of_one_table`` look up the weights of the sets, in place.

    Each resolution between the ends has a row of a table; integers choose it.

    Args:
        model: an ``onnx.ModelProto``.
        resolutions: trained, from the largest to the smallest.
    """
    graph, parts = model.graph, _parts(model.graph)
    nodes, tensors = counting(range(resolutions[-1], resolutions[0]))
    sides = range(resolutions[-1], resolutions[0] + 1)
    kind = needed("onnx").helper.tensor_dtype_to_np_dtype(_table(graph).data_type)
    rows = np.array([interpolation_weights(side, resolutions) for side in sides], kind)
    look = node("Gather", ["route:weights", STEP], [parts.given], axis=0)
    mix = [node("Einsum", [parts.given, TABLE], [parts.split.input[0]], equation="s,sk->k")]
    rest = [n for n in (*parts.weighing, *parts.body) if parts.given not in n.output]
    before = {name for n in graph.node for name in n.input}
    del graph.node[:]
    graph.node.extend(_alive([*nodes, look, *mix, parts.split, *rest], graph.output))
    unread = before - {name for n in graph.node for name in n.input}  # of which a runtime would warn
    kept = [t for t in graph.initializer if t.name not in unread]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *tensors, tensor(rows, "route:weights")])


def branch(model: Any, resolutions: Sequence[int], sides: Sequence[int]) -> Any:
    """Return a model of ``weigh_in_integers`` with B + 1 branches, each with nodes of its own.

    In the branch of a resolution the BN tensors are its weights times their rows of the table: constant, so that a
    runtime folds them into the convolutions when it opens the file. In the last branch, of all other sizes, they are
    data. Weights and table are stored once.

    Args:
        model: an ``onnx.ModelProto``, which is changed.
        resolutions: trained, from the largest to the smallest.
        sides: the B resolutions.
    """
    onnx, graph, parts = needed("onnx"), model.graph, _parts(model.graph)
    opset = next(entry for entry in model.opset_import if not entry.domain)
    body = onnx.helper.make_function(_DOMAIN, "Body", parts.inputs, [graph.output[0].name], parts.body, [opset])
    model.functions.append(body)
    model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    ways, weights = _ways(resolutions, sides)
    branches = [[*_row(i), *_call(parts, f"branch:{i}", f"row:{i}")] for i in range(len(weights))]
    # Apart from these the weights are no business of the graph's: what chooses the branch is all integers.
    mixing = [*(n for n in parts.weighing if parts.given in n.output), *parts.mixing]
    others = [*mixing, *_call(parts, "branch:others", parts.split.input[0])]
    choice, tensors = choosing(ways, [*branches, others], graph.output[0].name)
    del graph.node[:]
    graph.node.extend([*(n for n in parts.weighing if parts.given not in n.output), *choice])
    kind = onnx.helper.tensor_dtype_to_np_dtype(_table(graph).data_type)
    numbers = _numbers(np.asarray(weights, kind))
    graph.initializer.extend([*tensors, *(tensor(value, name) for name, value in numbers.items())])
    inlined = needed("onnx.inliner").inline_local_functions(model)
    del inlined.opset_import[-1]
    return inlined


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


def _ways(resolutions: Sequence[int], sides: Sequence[int]) -> tuple[list[int], list[tuple[float, ...]]]:
    """Return the place of the branch of each step, B if it has none, and the weights of the sets in each branch."""
    weights = [*dict.fromkeys(interpolation_weights(side, resolutions) for side in sides)]  # beyond the ends the same
    places = {row: place for place, row in enumerate(weights)}
    steps = range(resolutions[-1], resolutions[0] + 1)
    return [places.get(interpolation_weights(side, resolutions), len(weights)) for side in steps], weights


def _row(place: int) -> list[Any]:
    rows = node("Gather", [TABLE, f"sets:{place}"], [f"rows:{place}"], axis=0)
    return [rows, node("MatMul", [f"weights:{place}", f"rows:{place}"], [f"row:{place}"])]


def _call(parts: _Parts, name: str, row: str) -> list[Any]:
    """Return the call of the body on BN tensors cut from a row."""
    pieces = {piece: f"{name}:{piece}" for piece in parts.split.output}
    cut = node("Split", [row, *parts.split.input[1:]], [*pieces.values()])
    cut.attribute.extend(parts.split.attribute)
    # ONNX Runtime lays out anew, in blocks of channels, only weights of the branch's own: hence a copy that it
    # computes when it opens the file. It would drop an Identity; a Max of one it computes.
    copies = {kernel: f"{name}:{kernel}" for kernel in parts.kernels}
    given = [(pieces | copies).get(value, value) for value in parts.inputs]
    body = node("Body", given, [f"{name}:logits"], domain=_DOMAIN)
    return [cut, *(node("Max", [kernel], [copy]) for kernel, copy in copies.items()), body]


def _numbers(weights: Any) -> dict[str, Any]:
    """Return what the branches read, by name, for weights (B, S); a set of weight 0 is not among those of a branch."""
    numbers: dict[str, Any] = {}
    for i, row in enumerate(weights):
        (sets,) = np.nonzero(row)
        numbers |= {f"sets:{i}": sets, f"weights:{i}": row[sets]}
    return numbers


def _table(graph: Any) -> Any:
    return next(tensor for tensor in graph.initializer if tensor.name == TABLE)


def _alive(nodes: Sequence[Any], outputs: Iterable[Any]) -> list[Any]:
    """Return the nodes, in their order, that the outputs are computed from."""
    read = {output.name for output in outputs}
    kept = []
    for n in reversed(nodes):
        if read.intersection(n.output):
            kept.append(n)
            read.update(n.input)
    return kept[::-1]
