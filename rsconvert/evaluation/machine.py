"""The key of a machine: what a latency depends on beside the network."""

import platform
from pathlib import Path

import torch

__all__ = ["differences", "machine_key", "processor_name"]

_BETWEEN = "; "


def machine_key(device: torch.device) -> str:
    """Return device, processor, number of threads and torch's version, as in ``cpu; Intel Xeon; 2 threads; torch 2.9``.

    The threads are those of torch at the call.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return _BETWEEN.join([name, processor_name(), f"{torch.get_num_threads()} threads", f"torch {torch.__version__}"])


def differences(here: str, there: str) -> str:
    """Tell what one key has, and what another has in its place: ``2 threads here, 4 threads there``."""
    pairs = zip(here.split(_BETWEEN), there.split(_BETWEEN), strict=False)
    return ", ".join(f"{own} here, {other} there" for own, other in pairs if own != other)


def processor_name() -> str:
    """Return the processor's name, without a semicolon; Python itself knows only its kind on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return name.replace(_BETWEEN.strip(), ",")
