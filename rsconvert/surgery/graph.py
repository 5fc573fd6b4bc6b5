"""Torch.fx facts about any model: where its BatchNorms are called, what feeds them, what can't be traced."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import get_notrace_functions
from torch import fx, nn

from rsconvert.errors import first_line
from rsconvert.surgery.network import SwitchableBN, is_batchnorm, on_meta

# What hands the same numbers on: a BatchNorm behind a linear layer takes its tokens flattened.
_VIEWS = {"contiguous", "flatten", "permute", "reshape", "transpose", "view", torch.flatten}

__all__ = ["GraphFacts", "read_graph", "trace"]


@dataclass(frozen=True)
class GraphFacts:
    """What the graph of a model tells of its BatchNorms, by qualified name.

    ``calls`` counts the call sites, ``producers`` names the convolution or linear layer whose output a BatchNorm takes
    (None unless it is one and the same at all call sites), ``opaque`` maps a module that fx can't enter to the reason;
    a BatchNorm inside it has no call site.
    """

    calls: Counter[str]
    producers: dict[str, str | None]
    opaque: dict[str, str]


def read_graph(model: nn.Module, functional: Collection[str] = ()) -> GraphFacts:
    """Trace a throw-away copy of the model without data and collect its BatchNorm call sites.

    Args:
        functional: names of tensors that modules hand to F.batch_norm themselves; their modules are entered too.
    """
    graph, opaque = trace(on_meta(model).eval(), {name.rpartition(".")[0] for name in functional})
    modules = dict(model.named_modules())
    sites = [(name, n) for n in (graph.nodes if graph else ()) if (name := _called(n, modules, functional)) is not None]
    calls = Counter(name for name, _ in sites)
    feeders = {name: {_producer(n, modules) for own, n in sites if own == name} for name in calls}
    return GraphFacts(
        calls, {name: found.pop() if len(found) == 1 else None for name, found in feeders.items()}, opaque
    )


def trace(model: nn.Module, entered: Collection[str] = ()) -> tuple[fx.Graph | None, dict[str, str]]:
    """Return the graph of a model down to its BatchNorms, and the modules that stay opaque with the reason.

    Modules without a BatchNorm are leaves, but for those named in ``entered``. One that fx fails in becomes a leaf too,
    and the trace is tried again.
    Tracing may leave proxies in the model's caches: pass a copy. None for the graph: the root itself is opaque.
    """
    opaque: dict[str, str] = {}
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
    """Enters every module that holds a BatchNorm; remembers which it stands in, for the failure's sake."""

    def __init__(self, root: nn.Module, opaque: frozenset[str], entered: Collection[nn.Module]) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self.opaque = opaque
        self.entered = entered
        self.inside: list[str] = []
        # Before the trace: what is written by hand runs to be known.
        self.norms = frozenset(module for module in nn.Module.modules(root) if _is_norm(module))
        self.holders: dict[nn.Module, bool] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if m not in self.holders:
            inner = () if m in self.norms else nn.Module.modules(m)
            self.holders[m] = any(child in self.norms or child in self.entered for child in inner)
        return module_qualified_name in self.opaque or not self.holders[m]

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        name = self.path_of_module(m)
        # The call of a leaf fails by its arguments, which are its caller's affair.
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
        return function, [self._default(argument) for argument in arguments]

    def _default(self, argument: Any) -> Any:
        if not isinstance(argument, fx.Proxy) or not argument.node.args:
            return argument
        self.graph.erase_node(argument.node)
        return argument.node.args[0]


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


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, SwitchableBN) or is_batchnorm(module)


def _producer(node: fx.Node, modules: dict[str, nn.Module]) -> str | None:
    previous = node.args[0] if node.args else None
    while isinstance(previous, fx.Node) and previous.target in _VIEWS:
        previous = previous.args[0]
    if not isinstance(previous, fx.Node) or previous.op != "call_module":
        return None
    weighted = (nn.modules.conv._ConvNd, nn.Linear)
    return str(previous.target) if isinstance(modules[str(previous.target)], weighted) else None
