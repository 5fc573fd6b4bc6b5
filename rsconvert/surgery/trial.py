"""Trial: one forward of a model, watched: which BatchNorms ran, what they gave, or where it failed."""

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from rsconvert.errors import UnsupportedModelError, first_line
from rsconvert.models import Arguments, as_call
from rsconvert.surgery.network import batchnorms

__all__ = ["Trial", "equal_outputs", "run_trial"]

# The tensors among the first arguments of each function; a call without running statistics is no BatchNorm:
# weight standardization normalizes weights that way.
_FUNCTIONS = {
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias"),
    torch.batch_norm: ("input", "weight", "bias", "running_mean", "running_var"),
}


@dataclass
class Trial:
    """What one forward showed.

    ``calls`` counts the runs of each BatchNorm by name, a functional one by the name of its running mean.
    ``functional`` maps the names of tensors that a module hands to F.batch_norm itself to their part there, such as
    ``running_var``. ``sums`` holds the sum of each BatchNorm's output in the order of the calls, ``single`` the
    BatchNorms that got one value per channel. ``failure`` says where and why the forward failed.
    """

    output: Any = None
    calls: Counter[str] = field(default_factory=Counter)
    functional: dict[str, str] = field(default_factory=dict)
    sums: list[tuple[str, float]] = field(default_factory=list)
    single: set[str] = field(default_factory=set)
    failure: str | None = None


def run_trial(model: nn.Module, arguments: Arguments, norms: nn.Module | None = None) -> Trial:
    """Run a model and watch the BatchNorms of ``norms``, by default its own.

    Raises:
        UnsupportedModelError: F.batch_norm is called with running statistics, and with tensors that ``norms`` lacks.
    """
    watch = _Watch(model if norms is None else norms)
    trial, (args, kwargs) = watch.trial, as_call(arguments)
    try:
        with watch:
            trial.output = model(*args, **kwargs)
    except UnsupportedModelError:
        raise
    except Exception as error:  # whatever the model's own code raises
        reason = first_line(error) or type(error).__name__
        trial.failure = f"{watch.place} fails at {_source_line(error)}: {reason}"
    finally:
        watch.remove_hooks()
    return trial


def equal_outputs(one: Any, other: Any) -> bool:
    """Compare nested outputs bit for bit; a NaN equals itself."""
    leaves, others = tree_leaves(one), tree_leaves(other)
    return len(leaves) == len(others) and all(map(_equal_leaves, leaves, others))


def _equal_leaves(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor):
        return bool(one == other) or (one != one and other != other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


class _Watch(TorchFunctionMode):
    """Notes which module the forward stands in, and every normalization, be it a module's or a function's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.trial = Trial()
        self.root = type(model).__name__
        self.inside: list[str] = []
        self.norms = batchnorms(model)
        self.names = {id(t): name for name, t in (*model.named_parameters(), *model.named_buffers())}
        self.hooks = [bn.register_forward_hook(self._noter(name)) for name, bn in self.norms.items()]
        for name, module in model.named_modules():
            self.hooks.append(module.register_forward_pre_hook(self._opener(name)))
            self.hooks.append(module.register_forward_hook(self._close))

    @property
    def place(self) -> str:
        """The innermost module that was entered and not left."""
        return next((name for name in reversed(self.inside) if name), self.root)

    def remove_hooks(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in _FUNCTIONS and self.norms.keys().isdisjoint(self.inside):
            given = dict(zip(_FUNCTIONS[func], args, strict=False)) | (kwargs or {})
            if given.get("running_mean") is not None:
                self._note_function(given, output)
        return output

    def _note_function(self, given: dict[str, Any], output: Tensor) -> None:
        tensors = {part: given.get(part) for part in ("running_mean", "running_var", "weight", "bias")}
        owner = self.names.get(id(tensors["running_mean"]), "").rpartition(".")[0]
        if owner in self.norms:  # a BatchNorm whose tensors are used without a call of it: they are private already
            self._note(owner, given["input"], output)
            return
        for part, tensor in tensors.items():
            if tensor is not None and id(tensor) not in self.names:
                raise UnsupportedModelError(
                    f"{self.place} calls F.batch_norm with a {part} that is no tensor of the model; registered "
                    "parameters and buffers alone can be made private. Register it, or use an nn.BatchNorm2d."
                )
            if tensor is not None:
                self.trial.functional[self.names[id(tensor)]] = part
        self._note(self.names[id(tensors["running_mean"])], given["input"], output)

    def _note(self, name: str, x: Any, output: Any) -> None:
        self.trial.calls[name] += 1
        if isinstance(x, Tensor) and x.ndim > 1 and x.numel() == x.shape[1]:
            self.trial.single.add(name)
        numbers = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and not leaf.is_meta]
        self.trial.sums.append((name, sum(float(t.detach().sum(dtype=torch.float64)) for t in numbers)))

    def _noter(self, name: str) -> Callable[..., None]:
        return lambda _module, args, output: self._note(name, args[0] if args else None, output)

    def _opener(self, name: str) -> Callable[..., None]:
        return lambda *_: self.inside.append(name)

    def _close(self, *_: Any) -> None:
        self.inside.pop()


def _source_line(error: BaseException) -> str:
    """Return file:line and the text of the innermost line outside of torch and of this package."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not Path(f.filename).is_relative_to(Path(torch.__file__).parent)]
    frame = next((f for f in reversed(own) if Path(f.filename) != Path(__file__)), frames[-1])
    return f"{_short(frame.filename)}:{frame.lineno} ({' '.join((frame.line or '').split())})"


def _short(filename: str) -> str:
    """Return a file's path below its installation: timm/models/levit.py."""
    parts = Path(filename).parts
    start = max((i + 1 for i, part in enumerate(parts) if part in ("site-packages", "dist-packages")), default=-1)
    return "/".join(parts[start:])
