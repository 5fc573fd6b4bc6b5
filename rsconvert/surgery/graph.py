"""The network as a torch.fx graph: facts about any model's BatchNorms, and one graph that switches by itself."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import get_notrace_functions
from torch import Tensor, fx, nn

from rsconvert.errors import UnsupportedModelError, first_line
from rsconvert.models import ImageArgument
from rsconvert.surgery.network import SwitchableLayer, SwitchableModel, is_batchnorm, on_meta

__all__ = ["GraphFacts", "SetWeights", "read_graph", "to_graph", "trace"]

# What hands the same numbers on: a BatchNorm behind a linear layer takes its tokens flattened.
_VIEWS = {"contiguous", "flatten", "permute", "reshape", "transpose", "view", torch.flatten}
_WEIGHTS = "rsconvert_set_weights"


@dataclass(frozen=True)
class GraphFacts:
    """What the graph of a model shows of its BatchNorms, by qualified name.

    ``calls`` counts the call sites, ``producers`` names the convolution or linear layer whose output a BatchNorm takes
    (None unless it is one and the same at all call sites), ``opaque`` maps a module that fx can't enter to the reason;
    a BatchNorm inside it has no call site.
    """

    calls: Counter[str]
    producers: dict[str, str | None]
    opaque: dict[str, str]


def read_graph(model: nn.Module, functional: Collection[str] = ()) -> GraphFacts:
    """Trace a throw-away copy of the model without data and collect its BatchNorm call sites.

    The modules of ``functional``, names of tensors that they hand to F.batch_norm themselves, are entered too.
    """
    graph, opaque = trace(on_meta(model).eval(), {name.rpartition(".")[0] for name in functional})
    modules = dict(model.named_modules())
    calls: Counter[str] = Counter()
    producers: dict[str, str | None] = {}
    for node in graph.nodes if graph else ():
        if (name := _called(node, modules, functional)) is not None:
            producer = _producer(node, modules)
            producers[name] = producer if producers.get(name, producer) == producer else None
            calls[name] += 1
    return GraphFacts(calls, producers, opaque)


def trace(model: nn.Module, entered: Collection[str] = ()) -> tuple[fx.Graph | None, dict[str, str]]:
    """Return the graph of a model down to its BatchNorms, and the modules that stay opaque with the reason.

    Modules without a BatchNorm are leaves, but for those named in ``entered``. One that fx fails in becomes a leaf too,
    and the trace is tried again.
    Tracing may leave proxies in the model's caches: pass a copy. None for the graph: the root itself is opaque.
    """
    opaque: dict[str, str] = {}
    if hasattr(model, "requires_divisible_input_shape"):
        vars(model)["requires_divisible_input_shape"] = False  # segmentation_models_pytorch: no proxy passes the check
    while True:
        tracer = _Tracer(model, frozenset(opaque), {model.get_submodule(name) for name in entered})
        try:
            return tracer.trace(model), opaque
        except Exception as error:  # fx raises whatever the model's own code raises on a proxy
            name = tracer.inside[-1] if tracer.inside else ""
            opaque[name] = f"{type(error).__name__}: {first_line(error)}"
            if name == "":
                return None, opaque


class _Tracer(fx.Tracer):
    """Enters every module that holds a BatchNorm, and knows which one it is in when it fails."""

    def __init__(self, root: nn.Module, opaque: frozenset[str], entered: Collection[nn.Module]) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self.opaque = opaque
        self.entered = entered
        self.inside: list[str] = []
        # Before the trace: a BatchNorm written by hand is recognized by a run of it.
        self.norms = frozenset(m for m in nn.Module.modules(root) if isinstance(m, SwitchableLayer) or is_batchnorm(m))
        self.holders: dict[nn.Module, bool] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if m not in self.holders:
            inner = () if m in self.norms else nn.Module.modules(m)
            self.holders[m] = any(child in self.norms or child in self.entered for child in inner)
        return module_qualified_name in self.opaque or not self.holders[m]

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        name = self.path_of_module(m)
        # The call of a leaf fails by its arguments, which its caller chose.
        if self.is_leaf_module(m, name):
            return super().call_module(m, forward, args, kwargs)
        depth = len(self.inside)
        self.inside.append(name)
        output = super().call_module(m, forward, args, kwargs)
        del self.inside[depth:]
        return output

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """Bind optional arguments of forward to their defaults: a proxy is never None."""
        function, arguments = super().create_args_for_root(root_fn, is_module, concrete_args)
        for i, argument in enumerate(arguments):
            if isinstance(argument, fx.Proxy) and argument.node.args:
                self.graph.erase_node(argument.node)
                arguments[i] = argument.node.args[0]
        return function, arguments


def _called(node: fx.Node, modules: dict[str, nn.Module], functional: Collection[str]) -> str | None:
    """Return the BatchNorm that a node calls: a module, or a function by the name of its running mean."""
    if node.op == "call_module" and is_batchnorm(modules[str(node.target)]):
        return str(node.target)
    if node.op != "call_function" or node.target not in (F.batch_norm, torch.batch_norm):
        return None
    tensors = [str(n.target) for n in node.all_input_nodes if n.op == "get_attr"]
    owners = [name.rpartition(".")[0] for name in tensors]
    used = [owner for owner in owners if owner in modules and is_batchnorm(modules[owner])]
    return next((name for name in (*used, *tensors) if name in functional or name in used), None)


def _producer(node: fx.Node, modules: dict[str, nn.Module]) -> str | None:
    previous = node.args[0] if node.args else None
    while isinstance(previous, fx.Node) and previous.target in _VIEWS:
        previous = previous.args[0]
    if not isinstance(previous, fx.Node) or previous.op != "call_module":
        return None
    weighted = (nn.modules.conv._ConvNd, nn.Linear)
    return str(previous.target) if isinstance(modules[str(previous.target)], weighted) else None


class SetWeights(nn.Module):
    """Map an image batch (N, C, H, W) to the weights of the S sets, (S,), by its size alone.

    The hat functions of ``interpolation_weights`` in tensor arithmetic: a size that is symbolic stays data.
    """

    resolutions: Tensor

    def __init__(self, resolutions: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("resolutions", torch.tensor(resolutions, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        nodes = self.resolutions
        pixels = torch.scalar_tensor(x.shape[-2] * x.shape[-1], dtype=torch.float32, device=nodes.device)
        side = pixels.sqrt().round()
        # Between two neighbours this goes from 0 at the larger to 1 at the smaller.
        passed = ((nodes[:-1] - side) / (nodes[:-1] - nodes[1:])).clamp(0, 1)
        return torch.cat([torch.ones_like(nodes[:1]), passed]) - torch.cat([passed, torch.zeros_like(nodes[:1])])


def to_graph(net: SwitchableModel) -> fx.GraphModule:
    """Return a graph over the network's tensors, for eval mode, that chooses its BN set from the input's size.

    Every layer of sets in it is called with (x, weights), weights (S,) computed once from the input. It agrees
    with ``net(x)`` up to rounding at every size: exporters build on it.

    Raises:
        UnsupportedModelError: fx can't trace a module that holds a BatchNorm, the network is built again for each
            resolution, has private tensors that no BatchNorm or classifier owns, or takes no images (N, C, H, W).
    """
    image = _image(net)
    root = net.skeleton().eval()
    graph, opaque = trace(root)
    if graph is None or opaque:
        name, reason = next(iter(opaque.items()))
        raise UnsupportedModelError(
            f"{name or type(root).__name__} can't be traced by torch.fx ({reason}); a graph down to every BatchNorm is "
            "needed. Use one path instead: net.at(resolution)."
        )
    root.add_module(_WEIGHTS, SetWeights(net.resolutions).to(net.alpha.device))
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_after(inputs[-1]):
        place = next((node for node in inputs if node.target == image.name), inputs[0])
        weights = graph.call_module(_WEIGHTS, (place,))
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(root.get_submodule(str(node.target)), SwitchableLayer):
            node.args, node.kwargs = (*node.args, *node.kwargs.values(), weights), {}
    graph.lint()
    return fx.GraphModule(root, graph)


def _image(net: SwitchableModel) -> ImageArgument:
    """Return the image whose size chooses the set, of a network that one graph can represent."""
    heads = dict(net.switchable_heads())
    others = [name for name in net.other_private_tensors() if name.rpartition(".")[0] not in heads]
    if net.build is not None or others:
        reason = "is built again for each resolution" if net.build else f"has private {others[0]}"
        raise UnsupportedModelError(
            f"the network {reason}; one graph for all sizes needs one model whose private tensors are those of "
            "BatchNorm modules and classifiers. Use one path instead: net.at(resolution)."
        )
    images = (ImageArgument(),) if net.source.images is None else net.source.images
    odd = [image for image in images if image.keys or image.axes != (-2, -1)]
    if odd or not images:
        raise UnsupportedModelError(
            f"the network takes {f'{odd[0].label} {odd[0].layout}' if odd else 'no argument known to be an image'}; a "
            "graph chooses by images (N, C, H, W) that are an argument of their own. Use one path instead: "
            "net.at(resolution)."
        )
    return images[0]
