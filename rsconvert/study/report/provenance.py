"""Where a page comes from: the file, its run, the command, the versions, the machine."""

import csv
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

from rsconvert import __version__
from rsconvert.errors import CheckpointError
from rsconvert.evaluation import processor_name

__all__ = ["file_facts", "made_facts", "read_curves"]


def made_facts(command: str | None, device: torch.device) -> dict[str, Any]:
    """Return when, by what and on what machine a page was made."""
    versions = {"rsconvert": __version__, "torch": torch.__version__, "torchvision": torchvision.__version__}
    return {
        "date": _utc(datetime.now(UTC).timestamp()),
        "command": command,
        "versions": {**versions, "timm": timm.__version__, "Python": platform.python_version()},
        "machine": _machine(device),
    }


def file_facts(checkpoint: str | Path) -> dict[str, Any]:
    """Return name, size and date of a file; of a run's folder those of the best checkpoint.

    Raises:
        CheckpointError: there is no such file.
    """
    path = Path(checkpoint) / "best.safetensors" if Path(checkpoint).is_dir() else Path(checkpoint)
    try:
        status = path.stat()
    except OSError as error:
        raise CheckpointError(
            f"{path} can't be read ({error.strerror}); a checkpoint or the folder of a run is needed. Check the path."
        ) from error
    return {"name": str(path), "bytes": status.st_size, "date": _utc(status.st_mtime)}


def read_curves(run: str | Path) -> list[dict[str, float]] | None:
    """Return the rows of a run's ``summary.csv``, without empty cells; None where there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    path = Path(run) / "summary.csv"
    if not path.is_file():
        return None
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    except (ValueError, TypeError, csv.Error) as error:
        raise CheckpointError(
            f"{path} is damaged ({' '.join(str(error).split())}); the table that finetune writes is needed. "
            "Mend it, or give best.safetensors in the folder's place."
        ) from error


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {os.cpu_count()} cores, torch threads: {torch.get_num_threads()}"
