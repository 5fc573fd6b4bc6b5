"""The structure of a network: its modules and the shapes of its tensors, by which a file is built again."""

from collections.abc import Hashable

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["structure"]

# Users set their rates while they train.
_FREE = (nn.modules.dropout._DropoutNd, _NormBase)


def structure(net: nn.Module) -> Hashable:
    """Return what two networks of one builder have in common: replaced modules and renamed tensors show in it."""
    return frozenset((name, _kind(module), _shapes(module)) for name, module in net.named_modules())


def _kind(module: nn.Module) -> tuple[str, ...]:
    """Return the class and the settings; any BatchNorm can stand for another one of the same tensors."""
    if isinstance(module, _NormBase):
        return ()
    own = type(module).__module__.startswith("torch.nn.modules.") and not isinstance(module, _FREE)
    settings = module.extra_repr().replace("inplace=True", "") if own else ""
    return type(module).__qualname__, settings


def _shapes(module: nn.Module) -> frozenset[tuple[str, tuple[int, ...]]]:
    kept = [(n, t) for n, t in module._buffers.items() if n not in module._non_persistent_buffers_set]
    named = (*module._parameters.items(), *kept)
    return frozenset((name, tuple(tensor.shape)) for name, tensor in named if tensor is not None)
