"""One int8 file that switches: the quantized paths as branches, the nearest of which runs."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from rsconvert.export.onnx.routing import choosing, counting, node
from rsconvert.export.opening import needed

__all__ = ["assembled"]


def assembled(models: Mapping[int, Any], *, compact: bool = False) -> Any:
    """Return an ``onnx.ModelProto`` that runs, of several quantized paths, the one nearest to the input's resolution.

    Tensors that are equal in several paths are stored once. Each branch has a copy of its weights in memory, unless
    ``compact``: ONNX Runtime lays out anew only weights of the branch's own.

    Args:
        models: two or more; resolution in pixels → model, of one graph and opset.
    """
    onnx = needed("onnx")
    sides = sorted(models)
    first = models[sides[0]]
    store = _Store()
    leaves = [store.leaf(models[side], f"branch:{side}:", copies=not compact) for side in sides]
    count, limits = counting([(small + large) // 2 for small, large in pairwise(sides)])
    nodes, tensors = choosing(range(len(sides)), leaves, first.graph.output[0].name)
    graph = onnx.helper.make_graph(
        [*count, *nodes],
        "rsconvert",
        first.graph.input,
        first.graph.output,
        [*store.tensors.values(), *limits, *tensors],
    )
    return onnx.helper.make_model(graph, opset_imports=first.opset_import, ir_version=first.ir_version)


class _Store:
    """Tensors by their content, and the branches that read them."""

    def __init__(self) -> None:
        self.tensors: dict[tuple[Any, ...], Any] = {}

    def leaf(self, model: Any, prefix: str, *, copies: bool) -> list[Any]:
        """Return the nodes of a model under names of their own, that of the result the last."""
        names = {tensor.name: self._kept(tensor) for tensor in model.graph.initializer}
        made: list[Any] = []
        if copies:
            weights = [t.name for t in model.graph.initializer if len(t.dims) > 1]
            made = [node("Concat", [names[name]], [prefix + name], axis=0) for name in weights]
            names |= {name: prefix + name for name in weights}
        own = {name for n in model.graph.node for name in n.output}
        for original in model.graph.node:
            n = type(original)()
            n.CopyFrom(original)
            n.input[:] = [names.get(name, prefix + name if name in own else name) for name in original.input]
            n.output[:] = [prefix + name if name else "" for name in original.output]
            n.name = n.output[0]
            made.append(n)
        return _ending_with(made, prefix + model.graph.output[0].name)

    def _kept(self, tensor: Any) -> str:
        """Return the name under which a tensor is stored."""
        values = needed("onnx").numpy_helper.to_array(tensor)
        key = (tensor.data_type, tuple(tensor.dims), values.tobytes())
        if key not in self.tensors:
            copy = type(tensor)()
            copy.CopyFrom(tensor)
            copy.name = f"{tensor.name}:{len(self.tensors)}"
            self.tensors[key] = copy
        return str(self.tensors[key].name)


def _ending_with(nodes: list[Any], output: str) -> list[Any]:
    """Move the node that gives an output to the end, where nothing reads it any more."""
    (last,) = [n for n in nodes if output in n.output]
    return [*(n for n in nodes if n is not last), last]
