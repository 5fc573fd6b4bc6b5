"""Trials: a forward of a model on values that hide no mistake, watched: which BatchNorms ran, or where it failed.

A fresh network hides mistakes: timm zero-initialises the last γ of a block, statistics start at (0, 1), all sets are
equal. So the values of a trial are scrambled, differently for every set.
"""

import re
import traceback
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from rsconvert.errors import UnsupportedModelError, first_line
from rsconvert.models import Arguments, as_call, resizes_inside
from rsconvert.surgery.network import SwitchableModel, batchnorms

__all__ = [
    "Trial",
    "equal_outputs",
    "eval_mode",
    "fill_zeros",
    "fitted_inside",
    "run_trial",
    "scrambled",
    "scrambled_tensors",
    "tensors",
    "write",
]

# The tensors among the first arguments of each function; a call without running statistics is no BatchNorm:
# weight standardization normalizes weights that way.
_FUNCTIONS = {
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias"),
    torch.batch_norm: ("input", "weight", "bias", "running_mean", "running_var"),
}


def scrambled(model: nn.Module, resolution: int, functional: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """Return new values for every BatchNorm tensor by name, different for each resolution.

    Values vary around the given ones, so that a pretrained network stays finite through all its layers.

    Args:
        functional: further tensors that serve as those of a BatchNorm → their part in it, such as ``running_var``.
    """
    parts = dict(functional or {})
    for name, bn in batchnorms(model).items():
        parts |= {f"{name}.{key}".lstrip("."): key for key, _ in (*bn.named_parameters(), *bn.named_buffers())}
    return scrambled_tensors(model, resolution, parts)


def scrambled_tensors(model: nn.Module, resolution: int, parts: Mapping[str, str]) -> dict[str, Tensor]:
    """Return such values for the tensors of these names, each with its part in its layer, such as ``running_var``."""
    given = tensors(model)
    return {
        name: _scramble(name, part, given[name], resolution)
        for name, part in parts.items()
        if given[name].is_floating_point()
    }


def _scramble(name: str, part: str, tensor: Tensor, resolution: int) -> Tensor:
    factor = (0.7 + 0.6 * torch.rand(tensor.shape, generator=_generator(f"{name}@{resolution}"))).to(tensor)
    shift = (0.1 * torch.randn(tensor.shape, generator=_generator(f"{name}#{resolution}"))).to(tensor)
    return tensor * factor if part == "running_var" else torch.where(tensor == 0, shift, tensor * factor)


def fill_zeros(model: nn.Module) -> dict[str, Tensor]:
    """Return values for the parameters that are zero throughout (a new classifier, say): they hide every error."""
    return {
        name: (0.05 * torch.randn(parameter.shape, generator=_generator(name))).to(parameter)
        for name, parameter in model.named_parameters()
        if not parameter.any()
    }


def _generator(key: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(key.encode()))


@torch.no_grad()
def write(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy values into the tensors of those names."""
    own = tensors(model)
    for name, value in values.items():
        own[name].copy_(value)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer under all of its names."""
    return dict((*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)))


@contextmanager
def eval_mode(models: Iterable[nn.Module]) -> Iterator[None]:
    """Set eval mode, and each module's own mode again at the end."""
    models = list(models)
    modes = {m: m.training for model in models for m in _running(model)}
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _running(model: nn.Module) -> Iterable[nn.Module]:
    return model.running_modules() if isinstance(model, SwitchableModel) else nn.Module.modules(model)


@contextmanager
def fitted_inside(model: nn.Module, resolution: int | None) -> Iterator[None]:
    """Let a model that resizes inside resize to a resolution for a while: by default it would compute far more."""
    if resolution is None or not resizes_inside(model):
        yield
        return
    transform: Any = model.transform
    usual = {name: getattr(transform, name) for name in ("min_size", "max_size", "fixed_size")}
    transform.min_size, transform.max_size = (resolution,), resolution
    transform.fixed_size = usual["fixed_size"] and (resolution, resolution)
    try:
        yield
    finally:
        vars(transform).update(usual)


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


def run_trial(
    model: nn.Module, arguments: Arguments, resolution: int | None = None, norms: nn.Module | None = None
) -> Trial:
    """Run a model and watch the BatchNorms of ``norms``, by default its own.

    Args:
        resolution: what a model that resizes inside resizes to; by default its own size.
    Raises:
        UnsupportedModelError: F.batch_norm is called with running statistics, and with tensors that ``norms`` lacks.
    """
    norms = model if norms is None else norms
    watch = _Watch(norms)
    trial, (args, kwargs) = watch.trial, as_call(arguments)
    try:
        with fitted_inside(norms, resolution), watch:
            trial.output = model(*args, **kwargs)
    except UnsupportedModelError:
        raise
    except Exception as error:  # whatever the model's own code raises
        reason = first_line(error) or type(error).__name__
        trial.failure = f"{watch.place} fails at {_source_line(error)}: {reason}"
    finally:
        for hook in watch.hooks:
            hook.remove()
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
    """Notes which module the forward is in, and every normalization, by a module or by a function."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.trial = Trial()
        self.root = type(model).__name__
        self.inside: list[str] = []
        self.norms = batchnorms(model)
        self.names = {id(t): name for name, t in (*model.named_parameters(), *model.named_buffers())}
        self.hooks = [
            bn.register_forward_hook(lambda _, args, out, name=name: self._note(name, args[0] if args else None, out))
            for name, bn in self.norms.items()
        ]
        for name, module in model.named_modules():
            self.hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self.inside.append(name)))
            self.hooks.append(module.register_forward_hook(self._leave))

    def _leave(self, *_: Any) -> None:
        self.inside.pop()

    @property
    def place(self) -> str:
        """The innermost module that was entered and not left."""
        return next((name for name in reversed(self.inside) if name), self.root)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in _FUNCTIONS and self.norms.keys().isdisjoint(self.inside):
            given = dict(zip(_FUNCTIONS[func], args, strict=False)) | (kwargs or {})
            if given.get("running_mean") is not None:
                self._note_function(given, output)
        return output

    def _note_function(self, given: dict[str, Any], output: Tensor) -> None:
        mean = self.names.get(id(given["running_mean"]), "")
        owner = mean.rpartition(".")[0]
        if owner in self.norms:  # a BatchNorm whose tensors are used without a call of it: they are private already
            self._note(owner, given["input"], output)
            return
        for part in ("running_mean", "running_var", "weight", "bias"):
            if (tensor := given.get(part)) is None:
                continue
            if id(tensor) not in self.names:
                raise UnsupportedModelError(
                    f"{self.place} calls F.batch_norm with a {part} that is no tensor of the model; registered "
                    "parameters and buffers alone can be made private. Register it, or use an nn.BatchNorm2d."
                )
            self.trial.functional[self.names[id(tensor)]] = part
        self._note(mean, given["input"], output)

    def _note(self, name: str, x: Any, output: Any) -> None:
        self.trial.calls[name] += 1
        if isinstance(x, Tensor) and x.ndim > 1 and x.numel() == x.shape[1]:
            self.trial.single.add(name)
        numbers = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and not leaf.is_meta]
        self.trial.sums.append((name, sum(float(t.detach().sum(dtype=torch.float64)) for t in numbers)))


def _source_line(error: BaseException) -> str:
    """Return file:line and the text of the innermost line outside of torch and of this module.

    The file is given below its installation, as in timm/models/levit.py, or by its name alone.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not Path(f.filename).is_relative_to(Path(torch.__file__).parent)]
    frame = next((f for f in reversed(own) if Path(f.filename) != Path(__file__)), frames[-1])
    path = Path(frame.filename)
    *_, short = path.name, *re.split(r"/(?:site|dist)-packages/", path.as_posix())[1:]
    return f"{short}:{frame.lineno} ({' '.join((frame.line or '').split())})"
