"""The sets of a network as one table: a single product mixes them for all BatchNorms and classifiers at once."""

import operator
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from rsconvert.export.logits import keep_logits
from rsconvert.surgery import SetWeights, SwitchableLayer, SwitchableModel, to_graph

__all__ = ["TABLE", "graph_of_one_table"]

_MIXED = "rsconvert_sets"
TABLE = f"{_MIXED}.table"


def graph_of_one_table(net: SwitchableModel) -> fx.GraphModule:
    """Return the graph of ``to_graph``, its sets copied into the rows of a table (S, K), under the name ``TABLE``; it
    returns the logits alone.

    The weights of the sets times the table give the K numbers of all layers: γ, β, μ, σ² are interpolated, as a
    path does, and not the scale and shift that follow from them.

    Raises:
        UnsupportedModelError: as ``to_graph``.
    """
    module = keep_logits(to_graph(net), net.source.task)
    assert isinstance(module, fx.GraphModule)
    (weights,) = [n for n in module.graph.nodes if isinstance(_called(module, n), SetWeights)]
    sites = [n for n in module.graph.nodes if isinstance(_called(module, n), SwitchableLayer)]
    layers = {str(n.target): cast(SwitchableLayer, _called(module, n)) for n in sites}
    mixed = _MixedSets(list(layers.values()))
    module.add_module(_MIXED, mixed)
    with module.graph.inserting_after(weights):
        pieces = module.graph.call_module(_MIXED, (weights,))
    places = dict(zip(layers, mixed.places(), strict=True))
    for node in sites:
        name = str(node.target)
        with module.graph.inserting_before(node):
            own = [module.graph.call_function(operator.getitem, (pieces, place)) for place in places[name]]
        module.add_module(f"{_MIXED}_{node.name}", _GivenLayer(layers[name]))
        node.target, node.args = f"{_MIXED}_{node.name}", (node.args[0], *own)
    module.graph.lint()
    return fx.GraphModule(module, module.graph).eval()  # which keeps what the graph calls, and drops the sets


def _called(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


class _MixedSets(nn.Module):
    """Weights (S,) → the tensors of every layer of sets, flat, one after the other."""

    table: Tensor

    def __init__(self, layers: list[SwitchableLayer]) -> None:
        super().__init__()
        self.sizes = [[tensor.numel() for tensor in layer.floating(0).values()] for layer in layers]
        places = range(len(layers[0].sets))
        rows = [[t.detach().flatten() for layer in layers for t in layer.floating(i).values()] for i in places]
        self.register_buffer("table", torch.stack([torch.cat(row) for row in rows]))

    def places(self) -> list[range]:
        """Return where the tensors of each layer stand in the output."""
        ends = [sum(map(len, self.sizes[: i + 1])) for i in range(len(self.sizes))]
        return [range(end - len(sizes), end) for sizes, end in zip(self.sizes, ends, strict=True)]

    def forward(self, weights: Tensor) -> tuple[Tensor, ...]:
        return torch.split(weights.to(self.table.dtype) @ self.table, [size for sizes in self.sizes for size in sizes])


class _GivenLayer(nn.Module):
    """A BatchNorm or classifier that takes its tensors, flat, in addition to its input."""

    def __init__(self, layer: SwitchableLayer) -> None:
        super().__init__()
        self.__dict__["layer"] = layer.native  # outside the registry: its own tensors are not used
        self.like = {name: (tensor.shape, tensor.dtype) for name, tensor in layer.floating(0).items()}

    def forward(self, x: Tensor, *tensors: Tensor) -> Tensor:
        state = {n: t.view(shape).to(dtype) for t, (n, (shape, dtype)) in zip(tensors, self.like.items(), strict=True)}
        return cast(Tensor, functional_call(self.__dict__["layer"], state, (x,)))
