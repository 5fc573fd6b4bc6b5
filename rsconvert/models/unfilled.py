"""Builders run without filling parameters: the values come from elsewhere, and drawing them takes most of the time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["unfilled"]

_FILLS = {"add_", "clamp_", "copy_", "erfinv_", "fill_", "mul_", "normal_", "ones_", "uniform_", "zero_", "zeros_"}


@contextmanager
def unfilled() -> Iterator[None]:
    """Leave the parameters of models that are built inside as the memory was, and torch's CPU generator as it was.

    Buffers are computed as ever: index maps of attention are made by the constructor alone.
    """
    with torch.random.fork_rng(devices=[]), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Skips what fills a parameter: the functions of torch.nn.init, and the in-place methods that others use."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        target = args[0] if args else (kwargs or {}).get("tensor")
        fills = getattr(func, "__module__", None) == "torch.nn.init" or getattr(func, "__name__", None) in _FILLS
        if fills and isinstance(target, nn.Parameter):
            return target
        return func(*args, **(kwargs or {}))
