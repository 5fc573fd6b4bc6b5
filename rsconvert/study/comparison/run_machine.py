"""What a run was computed on."""

from importlib.metadata import version
from typing import Any

import torch

from rsconvert.evaluation import choose_device, processor_name

__all__ = ["machine_facts"]


def machine_facts(device: str | None) -> dict[str, Any]:
    """Return the name of the processor or GPU behind a device, the threads, and the versions of the libraries."""
    where = choose_device(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else processor_name()
    libraries = {library: version(library) for library in ("torch", "torchvision", "timm")}
    return {"device": where.type, "name": name, "threads": torch.get_num_threads(), **libraries}
