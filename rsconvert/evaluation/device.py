"""Where to compute, and in which precision."""

import textwrap

import torch
from torch import nn

from rsconvert.errors import ConfigError

__all__ = ["Amp", "amp_name", "autocast", "choose_device", "choose_precision", "float_dtype"]

Amp = str | torch.dtype | None
"""A precision of autocast as functions take it: ``bf16``, ``fp16``, ``off``, or torch's type; None chooses one."""

_OFF = torch.float32
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": _OFF}


def choose_device(name: str | torch.device | None) -> torch.device:
    """Return the device of a name such as ``cuda:0``; None takes a GPU if there is one.

    Raises:
        ConfigError: there is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.zeros(1, device=name).device
        if device.type == "meta":
            raise RuntimeError("it holds no values")
    except (RuntimeError, AssertionError, ImportError) as error:  # torch has one of each for what it lacks
        sentence = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        reason = textwrap.shorten(sentence, 80, placeholder=" …")
        raise ConfigError(f"device is {name!r}, which can't be used ({reason}); try cpu or cuda.") from error
    return device


def choose_precision(amp: Amp, device: torch.device) -> torch.dtype:
    """Return autocast's type; float32 stands for off: a network computes in its own precision.

    None takes bf16 on a GPU that computes in it, else off.

    Raises:
        ConfigError: ``amp`` is unknown, or fp16 on the CPU.
    """
    if amp is None:
        # Older GPUs imitate bfloat16, which saves no time.
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else _OFF
    chosen = _DTYPES.get(amp) if isinstance(amp, str) else amp
    if chosen is None or chosen not in _DTYPES.values():
        types = ", ".join(map(str, _DTYPES.values()))
        raise ConfigError(f"amp is {amp!r}; {', '.join(_DTYPES)}, or {types} are accepted.")
    if chosen is torch.float16 and device.type == "cpu":
        raise ConfigError("amp is fp16 on the CPU; bf16 or off is accepted there.")
    return chosen


def amp_name(amp: torch.dtype) -> str:
    """Return how ``--amp`` spells what `choose_precision` returned."""
    return next(name for name, dtype in _DTYPES.items() if dtype is amp)


def autocast(device: torch.device, amp: torch.dtype) -> torch.autocast:
    """Return the context that computes as `choose_precision` says."""
    return torch.autocast(device.type, None if amp is _OFF else amp, enabled=amp is not _OFF)


def float_dtype(model: nn.Module) -> torch.dtype:
    """Return the floating type of a network, in which it takes images: that of its first parameter of floats."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())
