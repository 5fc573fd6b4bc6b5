"""Measured: what was found out about a network as it is, and falls when it is changed."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rsconvert.data import Preprocessing

__all__ = ["Measured", "Measurements"]

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured on the values that a network has; its origin is another record, ``Source``.

    ``costs`` maps a machine to rows of what paths cost on it, with their top-1, of which docs/checkpoint_format.md
    tells the fields; ``cascade`` is what ``rsconvert cascade`` fitted.
    """

    costs: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
    cascade: Mapping[str, Any] | None = None


class Measurements:
    """Keeps a record for as long as the network is the one that was measured.

    The network is known by a fingerprint: the class and settings of each module, the bits of each tensor, and what is
    done to its images. A move to another device or memory format, and a copy, leave it; another dtype does not.
    It is compared where the record is read, so that no way to change a value can be missed.
    """

    def __init__(self) -> None:
        self._record, self._fingerprint = Measured(), None

    _record: Measured
    _fingerprint: Hashable

    def read(self, net: nn.Module, preprocessing: Preprocessing) -> Measured:
        """Return the record if it still holds; else forget it, and return an empty one."""
        if self._record != Measured() and self._fingerprint != _fingerprint(net, preprocessing):
            self._record, self._fingerprint = Measured(), None
        return self._record

    def note(self, record: Measured, net: nn.Module, preprocessing: Preprocessing) -> None:
        """Take a record that holds for the network as it is."""
        self._record = record
        self._fingerprint = None if record == Measured() else _fingerprint(net, preprocessing)


def _fingerprint(net: nn.Module, preprocessing: Preprocessing) -> Hashable:
    modules = tuple((name, type(m).__qualname__, m.extra_repr()) for name, m in net.named_modules())
    tensors = tuple((name, tuple(t.shape), str(t.dtype), _bits(t)) for name, t in net.state_dict().items())
    return modules, tensors, preprocessing


def _bits(tensor: Tensor) -> int | None:
    """Return the sum of a tensor's bit patterns, whatever their order in memory; None without values."""
    if tensor.is_meta:
        return None
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return int(real.detach().view(_BITS[real.element_size()]).sum(dtype=torch.int64))
