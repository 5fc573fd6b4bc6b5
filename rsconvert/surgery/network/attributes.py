"""Attributes of a network that are neither modules nor tensors: its source's, its structure, what was measured."""

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

__all__ = ["Measured", "fingerprint", "service", "structure"]

# Methods of timm's models, by what they touch.
_TAKE_AN_IMAGE = frozenset({"forward_features", "forward_intermediates", "get_intermediate_layers"})
_RETURN_FACTS = frozenset({"get_classifier", "group_matcher", "no_weight_decay", "no_weight_decay_keywords"})
_SET_A_MODE = frozenset({"set_distilled_training", "set_grad_checkpointing"})
_MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64  # of Fibonacci hashing, as a signed number
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def service(
    name: str, paths: Mapping[int, nn.Module], choose: Callable[[Sequence[Any], Mapping[str, Any]], nn.Module]
) -> Any:
    """Return what a network offers of its source under a name that it has not got itself.

    Data, and methods that return facts, are those of the native path. A method that takes an image runs on the path
    that fits it, one that sets a mode on every path. Nothing else is offered: a path has it.

    Args:
        paths: the live ones by resolution in pixels, the native one first; empty in a network half unpickled.
        choose: from the positional and the keyword arguments of a call to the path that fits the image among them.
    Raises:
        AttributeError: the source has no such attribute, or it belongs to one path alone.
    """
    native = next(iter(paths.values()), None)
    # deepcopy, pickle and DistributedDataParallel ask for names of this kind, of the network itself.
    if native is None or name.startswith("_") or not hasattr(native, name):
        raise AttributeError(f"'SwitchableModel' object has no attribute '{name}'")
    value = getattr(native, name)
    data = not callable(value) and not any(isinstance(leaf, (nn.Module, Tensor)) for leaf in tree_leaves(value))
    if data or name in _RETURN_FACTS:
        return value
    if name not in _TAKE_AN_IMAGE | _SET_A_MODE:
        raise AttributeError(_refusal(name, value))

    @functools.wraps(value)
    def call(*args: Any, **kwargs: Any) -> Any:
        if name in _TAKE_AN_IMAGE:
            return getattr(choose(args, kwargs), name)(*args, **kwargs)
        for path in paths.values():
            getattr(path, name)(*args, **kwargs)
        return None

    return call


def _refusal(name: str, value: Any) -> str:
    if name == "forward_head":
        return (
            "forward_head takes features, which do not show their resolution; a switchable network needs an image to "
            "choose a path. Call net.at(resolution).forward_head(…)."
        )
    if not callable(value) or isinstance(value, nn.Module):
        return (
            f"{name} holds modules or tensors of one path; a switchable network offers data alone. "
            f"Read net.at(resolution).{name}."
        )
    return (
        f"{name} is a method of one path; a switchable network offers those that take an image, return facts or set a "
        f"mode. Call net.at(resolution).{name}(…), or net.extract(resolution).{name}(…) if it changes modules."
    )


def structure(net: nn.Module) -> Hashable:
    """Return what two networks of one builder have in common: replaced modules and renamed tensors show in it."""
    return frozenset((name, _kind(module), _shapes(module)) for name, module in net.named_modules())


def _kind(module: nn.Module) -> tuple[str, ...]:
    """Return the class and the settings; any BatchNorm can stand for another one of the same tensors."""
    if isinstance(module, _NormBase):
        return ()
    # A user changes the rate of a dropout while training.
    fixed = type(module).__module__.startswith("torch.nn.modules.") and not isinstance(module, _DropoutNd)
    return type(module).__qualname__, module.extra_repr().replace("inplace=True", "") if fixed else ""


def _shapes(module: nn.Module) -> frozenset[tuple[str, tuple[int, ...]]]:
    kept = [(n, t) for n, t in module._buffers.items() if n not in module._non_persistent_buffers_set]
    named = (*module._parameters.items(), *kept)
    return frozenset((name, tuple(tensor.shape)) for name, tensor in named if tensor is not None)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured on the values that a network has; its origin is another record, ``Source``.

    ``costs`` maps a machine to rows of what paths cost on it, with their top-1, whose fields are in
    docs/checkpoint_format.md; ``cascade`` is what ``rsconvert cascade`` fitted, ``int8`` what ``rsconvert quantize``
    measured.
    """

    costs: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
    cascade: Mapping[str, Any] | None = None
    int8: Mapping[str, Any] | None = None


def fingerprint(net: nn.Module) -> Hashable:
    """Return what changes with a network: class and settings of each module, bits of each tensor, the preprocessing.

    A move to another device or memory format, and a copy, leave it; another dtype does not.
    """
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
