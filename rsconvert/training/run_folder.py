"""RunFolder: what a finetuning run leaves behind."""

import csv
import json
import tempfile
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

    An earlier run in it stays whole until the new one has finished an epoch.

    Raises:
        CheckpointError: the folder holds such a file already and ``force`` is not set.
    """

    def __init__(self, path: str | Path, *, force: bool = False) -> None:
        self.path = Path(path)
        self.last, self.best = self.path / "last.safetensors", self.path / "best.safetensors"
        self.summary, self.config = self.path / "summary.csv", self.path / "config.json"
        self.best_top1 = float("-inf")
        self._settings = "{}"
        self._fresh = True
        held = [file.name for file in (self.last, self.best, self.summary, self.config) if file.exists()]
        if held and not force:
            raise CheckpointError(
                f"{self.path} holds {', '.join(held)} already; a new or empty folder is needed. "
                "Choose another, or use --force."
            )

    def start(self, config: FinetuneConfig, facts: Mapping[str, Any]) -> None:
        """Make the folder and see that it can be written; take the settings, and what they amounted to.

        Raises:
            CheckpointError: the folder can't be made or written.
        """
        self._settings = json.dumps({**asdict(config), **facts}, indent=2) + "\n"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path).close()
        except OSError as error:
            raise CheckpointError(
                f"{self.path} can't be written ({error}); a folder is needed. Choose another."
            ) from error

    def add_epoch(self, net: SwitchableModel, row: Mapping[str, Any], top1: float) -> None:
        """Append a row to the summary; write the last network, and the best one by mean top-1 in percent.

        Raises:
            CheckpointError: there is no room on the disk.
        """
        # First, so that the best of an earlier run is replaced at once and never stands beside a row of this one.
        if top1 > self.best_top1:
            save(net, self.best)
            self.best_top1 = top1
        save(net, self.last)
        try:
            if self._fresh:
                self._replace_earlier(row)
            with open(self.summary, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, list(row)).writerow(row)
        except OSError as error:
            raise CheckpointError(
                f"{self.path} can't be written ({error}); room on the disk is needed. Make room."
            ) from error

    def _replace_earlier(self, row: Mapping[str, Any]) -> None:
        self.config.write_text(self._settings, encoding="utf-8")
        with open(self.summary, "w", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, list(row)).writeheader()
        self._fresh = False
