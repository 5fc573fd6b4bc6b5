"""RunFolder: what a finetuning run leaves behind."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rsconvert.checkpoint import save
from rsconvert.errors import CheckpointError
from rsconvert.surgery import SwitchableModel
from rsconvert.training.config import FinetuneConfig

__all__ = ["RunFolder"]


class RunFolder:
    """A folder with ``config.json``, ``summary.csv`` (a row per epoch), ``last.safetensors`` and ``best.safetensors``.

    Raises:
        CheckpointError: the folder holds a run already and ``force`` is not set, or can't be written.
    """

    def __init__(self, path: str | Path, *, force: bool = False) -> None:
        self.path = Path(path)
        self.best_top1 = float("-inf")
        if self.last.exists() and not force:
            raise CheckpointError(f"{self.path} holds a run already; a new or empty folder is needed. Choose another, or use --force.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for old in (self.last, self.best, self.summary):
                old.unlink(missing_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.path} can't be written ({error}); a folder is needed. Choose another.") from error

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def summary(self) -> Path:
        return self.path / "summary.csv"

    def write_config(self, config: FinetuneConfig, facts: Mapping[str, Any]) -> None:
        """Write the settings, and beside them what they amounted to."""
        text = json.dumps({**asdict(config), **facts}, indent=2)
        self._write("config.json", text + "\n")

    def add_epoch(self, net: SwitchableModel, row: Mapping[str, Any], top1: float) -> None:
        """Append a row to the summary; write the last network, and the best one by mean top-1 in percent."""
        save(net, self.last)
        if top1 > self.best_top1:
            self.best_top1 = top1
            save(net, self.best)
        try:
            fresh = not self.summary.exists()
            with open(self.summary, "a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(row))
                if fresh:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise CheckpointError(f"{self.summary} can't be written ({error}); room on the disk is needed. Make room.") from error

    def _write(self, name: str, text: str) -> None:
        try:
            (self.path / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"{self.path / name} can't be written ({error}); room on the disk is needed. Make room.") from error
