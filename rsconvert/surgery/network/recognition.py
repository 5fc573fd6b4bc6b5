"""Which modules are BatchNorms: those of known classes, and those written by hand, proved by what they compute.

DETR's FrozenBatchNorm2d and its relatives hold weight, bias, running_mean and running_var, and subclass no BatchNorm.
A module that holds these alone, and computes f(weight · (x - running_mean) / √(running_var + ε) + bias) value by
value, is one.
"""

import re
from collections.abc import Hashable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from timm.layers import FrozenBatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torchvision.ops import FrozenBatchNorm2d

from rsconvert.surgery.network.copying import copy_modules

__all__ = ["batchnorms", "holds_running_statistics", "is_batchnorm"]

_CLASSES = (_BatchNorm, FrozenBatchNorm2d, FrozenBatchNormAct2d)
_STATISTICS, _AFFINE = ("running_mean", "running_var"), ("weight", "bias")
_NAMED_SO = re.compile(r"(running|moving)_?(mean|avg|average|var|variance|std)", re.IGNORECASE)
# So large that no usual ε shows next to it.
_VARIANCE = 1e6
_Tensors = dict[str, Tensor]
# What a class computes does not change: the verdicts on it, by the settings of the instance.
_verdicts: WeakKeyDictionary[type[nn.Module], dict[Hashable, bool]] = WeakKeyDictionary()


def is_batchnorm(module: nn.Module) -> bool:
    """Return whether a module is a BatchNorm: 1d-3d, fused with an activation, synchronised, frozen, written by hand.

    A copy of one written by hand runs on a few numbers in eval mode, so the verdict needs neither the model nor its
    values.
    """
    if isinstance(module, _CLASSES):
        return True
    if not _has_the_tensors(module):
        return False
    settings = _settings(module)
    if settings is None:
        return _normalizes(module)
    verdicts = _verdicts.setdefault(type(module), {})
    if settings not in verdicts:
        verdicts[settings] = _normalizes(module)
    return verdicts[settings]


def batchnorms(model: nn.Module) -> dict[str, nn.Module]:
    """Return every outermost BatchNorm by its qualified names; one under two names appears under both."""
    found: dict[str, nn.Module] = {}

    def visit(module: nn.Module, name: str) -> None:
        if is_batchnorm(module):
            found[name] = module
            return
        for child_name, child in module._modules.items():
            if child is not None:
                visit(child, f"{name}.{child_name}" if name else child_name)

    visit(model, "")
    return found


def holds_running_statistics(module: nn.Module) -> bool:
    """Return whether a module's own tensors are named as running statistics; False for torch's InstanceNorm."""
    if isinstance(module, _NormBase):
        return False
    plain = (name for name, value in vars(module).items() if isinstance(value, Tensor))
    return any(_NAMED_SO.search(name) for name in (*module._parameters, *module._buffers, *plain))


def _has_the_tensors(module: nn.Module) -> bool:
    """Return whether a module holds a BatchNorm's tensors, which a file keeps, and no others but single numbers."""
    own = {**module._parameters, **module._buffers}
    mean = own.get("running_mean")
    if mean is None or own.get("running_var") is None or isinstance(module, _NormBase):
        return False
    vectors = {name: tensor for name, tensor in own.items() if tensor is not None and tensor.ndim > 0}
    return (
        vectors.keys() <= _own(module).keys()
        and not module._non_persistent_buffers_set
        and type(module).forward is not nn.Module.forward
        and mean.ndim == 1
        and all(tensor.shape == mean.shape and tensor.is_floating_point() for tensor in vectors.values())
        and not any(child._buffers for child in module.children())
    )


def _settings(module: nn.Module) -> Hashable | None:
    """Return what an instance may have of its own; None if it has a forward of its own."""
    if "forward" in vars(module):
        return None
    tensors = tuple(name for name, t in (*module._parameters.items(), *module._buffers.items()) if t is not None)
    plain = (bool, int, float, str, type(None))
    values = tuple(
        (name, repr(value) if type(value) in plain or callable(value) else str(type(value)))
        for name, value in vars(module).items()
        if name != "training"
    )
    return tensors, values, tuple((name, str(child)) for name, child in module.named_children())


@torch.no_grad()
def _normalizes(module: nn.Module) -> bool:
    for shape, axis in _shapes(len(_own(module)["running_mean"])):
        try:
            if _agrees(module, shape, axis):
                return True
        except Exception:  # whatever the module's own code raises on another number of dimensions
            continue
    return False


def _shapes(channels: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield shapes of inputs and their axis of channels, whose length no other axis has."""
    a, b, c = [n for n in (3, 4, 5, 6) if n != channels][:3]
    yield from (((2, channels, *inner), 1) for inner in ((a, b), (a,), (), (a, b, c)))
    yield from (((2, *inner, channels), len(inner) + 1) for inner in ((a, b), (a,)))


def _agrees(module: nn.Module, shape: tuple[int, ...], axis: int) -> bool:
    """Compare two sets of statistics on inputs that both normalize to the same; then change one value of the input."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    first, second = (_drawn(module, generator) for _ in range(2))
    output = _run(module, first, normal, axis)
    if output.shape != normal.shape or not torch.allclose(output, _run(module, second, normal, axis), atol=1e-4):
        return False
    place = (0,) * len(shape)
    changed = normal.clone()
    changed[place] += 1.0
    moved = (_run(module, first, changed, axis) - output).abs() > 1e-4
    return bool(moved[place]) and int(moved.sum()) == 1


def _drawn(module: nn.Module, generator: torch.Generator) -> _Tensors:
    """Return values for the tensors of a BatchNorm, in float64."""
    own = _own(module).items()
    drawn = {name: torch.rand(t.shape, generator=generator, dtype=torch.float64) + 0.5 for name, t in own}
    drawn["running_var"] *= _VARIANCE
    return drawn


def _own(module: nn.Module) -> _Tensors:
    own = {**module._parameters, **module._buffers}
    return {name: t for name in (*_STATISTICS, *_AFFINE) if (t := own.get(name)) is not None}


def _run(module: nn.Module, values: _Tensors, normal: Tensor, axis: int) -> Tensor:
    """Run a copy that has these values on the input which they normalize to ``normal``."""
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):  # of a child too, such as an activation's slope
        memo[id(tensor)] = torch.full(tensor.shape, 0.3, dtype=torch.float64)
    memo |= {id(tensor): values[name] for name, tensor in _own(module).items()}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(memo[id(parameter)])
    copied = copy_modules(module, memo)
    for part in nn.Module.modules(copied):
        part.training = False
    shape = [1] * normal.ndim
    shape[axis] = -1
    mean, variance = (values[name].view(shape) for name in _STATISTICS)
    weight, bias = (values[name].view(shape) if name in values else float(name == "weight") for name in _AFFINE)
    return copied.forward((normal - bias) / weight * variance.sqrt() + mean)  # type: ignore[no-any-return]
