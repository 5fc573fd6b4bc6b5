"""What a run was computed on."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rsconvert.evaluation import choose_device

__all__ = ["machine_facts"]


def machine_facts(device: str | None) -> dict[str, Any]:
    """Return the name of the processor or GPU behind a device, the threads, and the versions of the libraries."""
    where = choose_device(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else _processor()
    libraries = {library: version(library) for library in ("torch", "torchvision", "timm")}
    return {"device": where.type, "name": name, "threads": torch.get_num_threads(), **libraries}


def _processor() -> str:
    """Return the processor's name; Python's own answer is but its architecture on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
