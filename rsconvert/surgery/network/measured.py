"""Measured: what was found out about a network as it is, and falls when it is changed."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

__all__ = ["Measured", "MeasuredAttribute"]

_PLACE = "_measured"
_MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64  # of Fibonacci hashing, as a signed number
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured on the values that a network has; its origin is another record, ``Source``.

    ``costs`` maps a machine to rows of what paths cost on it, with their top-1, of which docs/checkpoint_format.md
    tells the fields; ``cascade`` is what ``rsconvert cascade`` fitted.
    """

    costs: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
    cascade: Mapping[str, Any] | None = None


class MeasuredAttribute:
    """The attribute ``measured`` of a network: a record for as long as the network is the one that was measured.

    The network is known by a fingerprint: the class and settings of each module, the bits of each tensor, and what is
    done to its images. A move to another device or memory format, and a copy, leave it; another dtype does not.
    It is compared where the record is read, so that no way to change a value can be missed.
    """

    @overload
    def __get__(self, net: None, owner: type) -> "MeasuredAttribute": ...

    @overload
    def __get__(self, net: nn.Module, owner: type) -> Measured: ...

    def __get__(self, net: nn.Module | None, owner: type) -> "Measured | MeasuredAttribute":
        """Return the record if it still holds; else forget it, and return an empty one."""
        if net is None:
            return self
        record, fingerprint = vars(net).get(_PLACE, (Measured(), None))
        if record != Measured() and fingerprint != _fingerprint(net):
            record = Measured()
            vars(net).pop(_PLACE, None)
        return cast(Measured, record)

    def __set__(self, net: nn.Module, record: Measured) -> None:
        """Take a record that holds for the network as it is."""
        vars(net)[_PLACE] = record, None if record == Measured() else _fingerprint(net)


def _fingerprint(net: nn.Module) -> Hashable:
    modules = tuple((name, type(m).__qualname__, m.extra_repr()) for name, m in net.named_modules())
    tensors = tuple((name, tuple(t.shape), str(t.dtype), _bits(t)) for name, t in net.state_dict().items())
    return modules, tensors, cast(Any, net).source.preprocessing


def _bits(tensor: Tensor) -> int | None:
    """Return a sum of a tensor's bit patterns, each times a number of its place; None without values."""
    if tensor.is_meta:
        return None
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    bits = real.detach().contiguous().view(_BITS[real.element_size()]).flatten().long()
    # Odd multipliers, which no place shares with its neighbours; the products wrap around.
    places = torch.arange(1, bits.numel() + 1, device=bits.device) * _MULTIPLIER | 1
    return int((bits * places).sum())
