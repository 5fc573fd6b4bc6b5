"""RunFolder: what a finetuning run leaves behind."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rsconvert.checkpoint import read_metadata, replacing, write_network
from rsconvert.errors import CheckpointError
from rsconvert.surgery import SwitchableModel
from rsconvert.training.run.state_files import StateFiles
from rsconvert.training.run.summary import SUMMARY, Row, write_summary

__all__ = ["RunFolder"]


class RunFolder:
    """A folder with ``config.json``, ``summary.csv`` (a row per epoch), ``last.safetensors``, ``best.safetensors``.

    ``state/`` holds what it needs to go on. What an earlier run left stays until the new one has finished an epoch,
    but for its states, which end with the new one's first.

    Args:
        keep: states that stay.
    Raises:
        CheckpointError: the folder holds such a file already, and neither ``force`` nor ``resume`` is set.
    """

    def __init__(self, path: str | Path, *, keep: int = 2, force: bool = False, resume: bool = False) -> None:
        self.path = Path(path)
        self.last, self.best = self.path / "last.safetensors", self.path / "best.safetensors"
        self.summary, self.config = self.path / SUMMARY, self.path / "config.json"
        self.states = StateFiles(self.path / "state", keep)
        self._settings, self._fresh = "{}", True
        named = [file.name for file in (self.last, self.best, self.summary, self.config) if file.exists()]
        held = named + (["state"] if self.states.folder.exists() else [])
        if held and not (force or resume):
            raise CheckpointError(
                f"{self.path} holds {', '.join(held)} already; a new or empty folder is needed. "
                "Choose another, go on with --resume, or replace the run by --force."
            )

    def start(self, settings: Mapping[str, Any], *, fresh: bool = True) -> None:
        """Make the folder and see that it can be written.

        Args:
            settings: with what they amount to.
            fresh: whether the run is another one than that of the states in the folder.
        Raises:
            CheckpointError: the folder can't be made or written.
        """
        self._settings, self._fresh = json.dumps(settings, indent=2) + "\n", fresh
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path).close()
            for part in self.path.rglob(".*.part"):  # of writes that were killed
                part.unlink()
        except OSError as error:
            raise CheckpointError(
                f"{self.path} can't be written ({error}); a folder is needed. Choose another."
            ) from error

    def add_state(self, number: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep what the run needs to go on; the first one ends the states of an earlier run.

        Raises:
            CheckpointError: there is no room on the disk.
        """
        self._end_earlier()
        self.states.write(number, tensors, facts)

    def add_epoch(self, net: SwitchableModel, rows: Sequence[Row], *, is_best: bool) -> None:
        """Write the last network, also as the best one if it is that, and the rows of all epochs.

        Raises:
            CheckpointError: there is no room on the disk.
        """
        self._end_earlier()
        # First, so that the best of an earlier run is replaced at once and never stands beside a row of this one.
        if is_best:
            write_network(net, self.best)
        write_network(net, self.last)
        with replacing(self.config) as part:
            part.write_text(self._settings, encoding="utf-8")
        write_summary(self.path, rows)

    def best_epoch(self) -> int:
        """Return the epoch whose network is in the file of the best one.

        Raises:
            CheckpointError: there is no such file.
        """
        return int((read_metadata(self.best).source.training or {})["epoch"])

    def _end_earlier(self) -> None:
        if self._fresh:
            self.states.clear()
            self._fresh = False
