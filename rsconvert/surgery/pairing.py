"""Which BatchNorm can become part of which convolution or linear layer, seen in the graph of a plain model."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from timm.layers import BatchNormAct2d, Conv2dSame, DropPath, FrozenBatchNormAct2d
from timm.layers import Linear as TimmLinear
from timm.layers.norm_act import SyncBatchNormAct
from timm.layers.split_batchnorm import SplitBatchNorm2d
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torchvision.ops import FrozenBatchNorm2d

from rsconvert.surgery.graph import trace
from rsconvert.surgery.network import batchnorms, on_meta

__all__ = ["Pair", "find_pairs"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (*_CONVOLUTIONS, *_TRANSPOSED, Conv2dSame, nn.Linear, TimmLinear)
_NORMS = (
    *(_BatchNorm, nn.SyncBatchNorm, SplitBatchNorm2d, FrozenBatchNorm2d),
    *(BatchNormAct2d, SyncBatchNormAct, FrozenBatchNormAct2d),
)
# In eval mode they hand on what they get.
_PASSING = (nn.Identity, nn.modules.dropout._DropoutNd, DropPath)


@dataclass(frozen=True)
class Pair:
    """A BatchNorm and the layer that can take it over; ``behind`` if the BatchNorm stands behind the layer."""

    bn: str
    layer: str
    behind: bool


def find_pairs(model: nn.Module, dimensions: Mapping[str, int]) -> tuple[list[Pair], dict[str, str]]:
    """Return the pairs of a model in eval mode, and the BatchNorms without a layer, each with the reason.

    A pair is exact arithmetic: each of the two is called once, nothing but the other uses what lies between, and
    nothing nonlinear nor a border of zeros is there.

    Args:
        dimensions: the number of dimensions of the input of each BatchNorm that runs, by name.
    """
    view = _View(model, dimensions)
    found = {name: view.pair(name) for name in view.modules if name in batchnorms(model)}
    pairs = [pair for pair in found.values() if isinstance(pair, Pair)]
    return pairs, {name: reason for name, reason in found.items() if isinstance(reason, str)}


class _View:
    """The graph of a model with what the search asks of it; a reason is a string where a pair could stand."""

    def __init__(self, model: nn.Module, dimensions: Mapping[str, int]) -> None:
        graph, self.opaque = trace(on_meta(model).eval())
        self.dimensions = dimensions
        self.modules = dict(model.named_modules())
        self.calls: dict[str, list[fx.Node]] = {}
        for node in graph.nodes if graph else ():
            if node.op == "call_module":
                self.calls.setdefault(str(node.target), []).append(node)
        own = (parameter for module in nn.Module.modules(model) for parameter in module._parameters.values())
        self.owners = Counter(id(parameter) for parameter in own if parameter is not None)

    def pair(self, name: str) -> Pair | str:
        calls = self.calls.get(name, [])
        if len(calls) != 1:
            return self._uncalled(name) if not calls else f"it is called {len(calls)} times"
        if reason := _unfit_norm(self.modules[name]):
            return reason
        ahead = self._layer_ahead(calls[0])
        if isinstance(ahead, Pair):
            return ahead
        after = self._layer_after(calls[0])
        return after if isinstance(after, Pair) else f"{ahead}, and {after}"

    def _uncalled(self, name: str) -> str:
        for place, reason in self.opaque.items():
            if not place or f"{name}.".startswith(f"{place}."):
                return f"torch.fx can't enter {place or 'the model'} around it ({reason})"
        return "it is not called in eval mode"

    def _layer_ahead(self, bn: fx.Node) -> Pair | str:
        node = bn.all_input_nodes[0]
        while self._passes(node) and len(node.users) == 1:
            node = node.all_input_nodes[0]
        text = self._text(node)
        if (layer := self._layer(node)) is None:
            return f"its input comes from {text}"
        if len(node.users) > 1:
            return f"{text} ahead of it has {len(node.users)} readers"
        name, own = str(bn.target), str(node.target)
        if isinstance(layer, nn.Linear) and self.dimensions[name] != 2:
            return f"{text} ahead of it has its channels in another place"
        reason = self._unfit_layer(own, layer)
        return f"{text} ahead of it {reason}" if reason else Pair(name, own, behind=True)

    def _layer_after(self, bn: fx.Node) -> Pair | str:
        name, node = str(bn.target), bn
        act = self.modules[name]._modules.get("act")
        if act is not None and not isinstance(act, nn.Identity):
            return f"its own {type(act).__name__} follows"
        while len(node.users) == 1 and (node is bn or self._passes(node)):
            node = next(iter(node.users))
        text = self._text(node)
        if node is bn or self._passes(node):
            return f"its output has {len(node.users)} readers"
        if (layer := self._layer(node)) is None:
            return f"its output goes to {text}"
        reason = self._unfit_layer(str(node.target), layer) or _inexact(layer, self.dimensions[name])
        return f"{text} behind it {reason}" if reason else Pair(name, str(node.target), behind=False)

    def _passes(self, node: fx.Node) -> bool:
        return node.op == "call_module" and isinstance(self.modules[str(node.target)], _PASSING)

    def _layer(self, node: fx.Node) -> nn.Module | None:
        layer = self.modules[str(node.target)] if node.op == "call_module" else None
        return layer if isinstance(layer, (_ConvNd, nn.Linear)) else None

    def _unfit_layer(self, name: str, layer: nn.Module) -> str | None:
        if reason := _changed(layer) or ("has an arithmetic of its own" if not _inherits(layer, _LAYERS) else None):
            return reason
        if len(self.calls[name]) > 1:
            return f"is called {len(self.calls[name])} times"
        tied = any(self.owners[id(parameter)] > 1 for parameter in layer._parameters.values())
        return "shares its tensors with another layer" if tied else None

    def _text(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"{node.target} ({type(self.modules[str(node.target)]).__name__})"
        target = cast(object, node.target)
        return {"placeholder": "the model's input", "output": "the model's output"}.get(
            node.op, str(getattr(target, "__name__", target))
        )


def _unfit_norm(bn: nn.Module) -> str | None:
    if bn._buffers.get("running_mean") is None or bn._buffers.get("running_var") is None:
        return "it has no running statistics"
    if reason := _changed(bn, parametrized=("weight", "bias")):
        return f"it {reason}"
    return None if _inherits(bn, _NORMS) else f"{type(bn).__name__} has an arithmetic of its own"


def _inherits(module: nn.Module, classes: tuple[type[nn.Module], ...]) -> bool:
    """Tell whether a module computes as one of the classes does: a subclass may have a forward of its own."""
    own = type(module)
    methods = [(own.forward, getattr(own, "_conv_forward", None))]
    return "forward" not in vars(module) and any(
        (known.forward, getattr(known, "_conv_forward", None)) in methods for known in classes
    )


def _changed(module: nn.Module, parametrized: tuple[str, ...] = ("weight",)) -> str | None:
    if module._forward_hooks or module._forward_pre_hooks:
        return "has hooks"
    plain = all(key in module._parameters or key in module._buffers for key in parametrized)
    return None if plain else "computes its weight from other tensors"


def _inexact(layer: nn.Module, dimensions: int) -> str | None:
    """Tell why what a BatchNorm adds can't become a bias of the layer behind it."""
    if isinstance(layer, nn.Linear):
        return None if dimensions == 2 else "has its channels in another place"
    if isinstance(layer, _ConvTransposeNd):
        return "is transposed: its borders see fewer inputs"
    assert isinstance(layer, _ConvNd)
    pads = any(layer._reversed_padding_repeated_twice) and layer.padding_mode == "zeros"
    return "pads with zeros" if pads or isinstance(layer, Conv2dSame) else None
