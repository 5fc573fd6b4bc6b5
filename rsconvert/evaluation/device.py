"""Where to compute, and in which precision."""

import textwrap

import torch

from rsconvert.errors import ConfigError

__all__ = ["choose_device", "choose_precision"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}


def choose_device(name: str | None) -> torch.device:
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


def choose_precision(amp: str | None, device: torch.device) -> torch.dtype | None:
    """Return autocast's type for ``bf16``, ``fp16`` or ``off``; None takes bf16 on a GPU that computes in it.

    Raises:
        ConfigError: ``amp`` is unknown, or fp16 on the CPU.
    """
    if amp is None:
        # Older GPUs imitate bfloat16, which saves no time.
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else None
    if amp not in _DTYPES:
        raise ConfigError(f"amp is {amp!r}; {', '.join(_DTYPES)} are accepted. Choose one of them.")
    if amp == "fp16" and device.type == "cpu":
        raise ConfigError("amp is fp16 on the CPU; bf16 or off is accepted there. Change it.")
    return _DTYPES[amp]
