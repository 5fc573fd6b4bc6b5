"""What a file computes of a network's output: its logits alone, whatever else the network returns."""

import functools
from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn

from rsconvert.models import Task

__all__ = ["keep_logits", "logits_in"]

_SELECT = "rsconvert_logits"


def keep_logits(module: nn.Module, task: Task) -> nn.Module:
    """Make a module return its logits alone, in place; return it.

    A graph drops what nothing else needs, such as auxiliary heads. A network that returns a tensor stays as it is.
    """
    if task.output is None:
        return module
    if isinstance(module, fx.GraphModule):
        _cut(module, task)
    else:
        module.forward = _selecting(module.forward, task)
    return module


def logits_in(output: Any, task: Task) -> Tensor:
    """Return the logits in what a file gave: one tensor as a rule, in stock models what their library returns."""
    return output if isinstance(output, Tensor) else task.logits(output)


def _cut(module: fx.GraphModule, task: Task) -> None:
    output = next(node for node in module.graph.nodes if node.op == "output")
    found = _part(output.args[0], str(task.output))
    if found is None:  # a tensor, or what a module returned whole
        module.add_module(_SELECT, _Select(task))
        with module.graph.inserting_before(output):
            found = module.graph.call_module(_SELECT, output.args)
    output.args = (found,)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()


class _Select(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, output: Any) -> Tensor:
        return self.task.logits(output)


def _part(held: Any, key: str) -> Any:
    """Return the node that an output holds under a key, a name or a number; None if the graph does not show it."""
    names = getattr(held.target, "_fields", None) if isinstance(held, fx.Node) else ()
    if names is None:
        return None
    if names:  # a named tuple, whose class the graph calls
        held = held.args
    if isinstance(held, Mapping):
        return held.get(key)
    return held[names.index(key) if key in names else int(key)]


def _selecting(forward: Any, task: Task) -> Any:
    @functools.wraps(forward)
    def selected(*args: Any, **kwargs: Any) -> Tensor:
        return task.logits(forward(*args, **kwargs))

    return selected
