"""The resolution of an input in integers, which no tool rounds, quantizes or makes half precision."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rsconvert.export.opening import needed

__all__ = ["STEP", "choosing", "counting", "limit", "node", "tensor"]

STEP = "route:step"
# The colon in the names that are made here keeps them apart from those of modules.


def limit(resolution: int) -> int:
    """Return the largest H·W of an input that counts as a resolution or less: √(H·W) < r + 1/2 is H·W ≤ r² + r.

    >>> limit(2), round((2 * 3) ** 0.5), round((1 * 7) ** 0.5)
    (6, 2, 3)
    """
    return resolution * (resolution + 1)


def counting(resolutions: Sequence[int]) -> tuple[list[Any], list[Any]]:
    """Return nodes, and tensors that they read, that give ``STEP``: how many of some resolutions an input exceeds.

    Args:
        resolutions: in pixels; those of an input count as round(√(H·W)) of its last two dimensions.
    """
    nodes = [
        node("Shape", ["images"], ["route:sides"], start=-2),
        node("ReduceProd", ["route:sides"], ["route:area"], keepdims=0),
        node("Greater", ["route:area", "route:limits"], ["route:above"]),
        node("Cast", ["route:above"], ["route:ones"], to=needed("onnx").TensorProto.INT64),
        node("ReduceSum", ["route:ones"], [STEP], keepdims=0),
    ]
    return nodes, [tensor(np.array([limit(r) for r in resolutions], np.int64), "route:limits")]


def choosing(places: Sequence[int], leaves: Sequence[Sequence[Any]], output: str) -> tuple[list[Any], list[Any]]:
    """Return nodes, and tensors that they read, that run one of several lists of nodes.

    Args:
        places: which list runs, for each value of ``STEP``.
        leaves: the lists; of each the last node gives the result.
        output: the name of the result.
    """
    find = node("Gather", ["route:places", STEP], ["route:place"], axis=0)
    less = [node("Less", ["route:place", f"route:{i}"], [f"route:below:{i}"]) for i in range(1, len(leaves))]
    chosen = _tree(leaves)[-1]
    chosen.output[0] = output
    numbers = [tensor(np.array(i), f"route:{i}") for i in range(1, len(leaves))]
    return [find, *less, chosen], [tensor(np.array(places), "route:places"), *numbers]


def _tree(leaves: Sequence[Sequence[Any]], first: int = 0) -> Sequence[Any]:
    """Return the nodes that compute one of some lists, by halves: a file may not nest deep."""
    if len(leaves) == 1:
        return leaves[0]
    half = len(leaves) // 2
    ways = _tree(leaves[:half], first), _tree(leaves[half:], first + half)
    return [_choice(f"route:below:{first + half}", *ways)]


def _choice(condition: str, then: Sequence[Any], otherwise: Sequence[Any]) -> Any:
    """Return the node that runs one of two lists of nodes, and gives what the last of them does."""
    helper = needed("onnx").helper

    def graph(way: str, nodes: Sequence[Any]) -> Any:
        output = helper.make_empty_tensor_value_info(nodes[-1].output[0])
        return helper.make_graph(nodes, f"{condition}:{way}", [], [output])

    ways = graph("then", then), graph("else", otherwise)
    return node("If", [condition], [f"{condition}:logits"], then_branch=ways[0], else_branch=ways[1])


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    """Return an ``onnx.NodeProto`` named after its first output."""
    return needed("onnx").helper.make_node(kind, inputs, outputs, name=outputs[0], **attributes)


def tensor(values: Any, name: str) -> Any:
    """Return an ``onnx.TensorProto`` of an array."""
    return needed("onnx").numpy_helper.from_array(values, name)
