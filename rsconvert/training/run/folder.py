"""RunFolder: the files of a finetuning run: settings, summary, the last and the best network, states to resume from."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from rsconvert.checkpoint import (
    clear,
    digest,
    left_behind,
    owned,
    read_header,
    read_metadata,
    read_tensors,
    replacing,
    write_network,
    write_tensors,
)
from rsconvert.errors import CheckpointError
from rsconvert.surgery import SwitchableModel
from rsconvert.text import parse_json
from rsconvert.training.run.summary import SUMMARY, Row, write_summary

__all__ = ["RunFolder"]

_VERSION = 1
State = tuple[dict[str, Tensor], dict[str, Any]]


class RunFolder:
    """A folder with ``config.json``, ``summary.csv`` (a row per epoch), ``last.safetensors``, ``best.safetensors``.

    ``state/`` holds what it needs to resume: ``NUMBER.safetensors``, numbered as they were written. What an earlier run
    left stays until the new one has finished an epoch, but for its states, which end with the new one's first.

    Args:
        keep: states that stay.
    Raises:
        CheckpointError: the folder holds such a file already, and neither ``force`` nor ``resume`` is set; later, the
            disk is full.
    """

    def __init__(self, path: str | Path, *, keep: int = 2, force: bool = False, resume: bool = False) -> None:
        self.path, self.keep = Path(path), keep
        names = ("last.safetensors", "best.safetensors", SUMMARY, "config.json", "state")
        self.last, self.best, _, self.config, self.states = (self.path / name for name in names)
        self._settings, self._fresh, self._lock, self._held = "{}", True, ExitStack(), False
        held = [name for name in names if (self.path / name).exists()]
        if held and not (force or resume):
            raise CheckpointError(
                f"{self.path} holds {', '.join(held)} already; a new or empty folder is needed. "
                "Choose another, continue with --resume, or replace the run by --force."
            )

    def hold(self) -> None:
        """Keep other processes out of the folder, once it exists, until `release`."""
        if self.path.is_dir() and not self._held:
            self._held = True
            self._lock.enter_context(owned(self.path))

    def release(self) -> None:
        """Let other processes in again."""
        self._lock.close()

    def start(self, settings: Mapping[str, Any], *, fresh: bool = True) -> None:
        """Make the folder, see that it can be written, keep other processes out, and remove what killed ones left.

        Args:
            settings: with what they amount to.
            fresh: whether the run is another one than that of the states in the folder.
        Raises:
            CheckpointError: the folder can't be made or written, or another process has it.
        """
        self._settings, self._fresh = json.dumps(settings, indent=2) + "\n", fresh
        _make(self.path)
        self.hold()
        for folder in (self.path, self.states):
            for old in left_behind(folder):
                clear(old)

    def add_state(self, number: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep what the run needs to resume, and the newest few states before it, which a full disk leaves intact."""
        self._end_earlier()
        text = json.dumps({"version": _VERSION, "facts": facts})
        _make(self.states)
        header = {"rsconvert_state": text, "digest": digest(tensors, text)}
        write_tensors(tensors, self.states / f"{number:09d}.safetensors", header)
        for file in self._state_files()[self.keep :]:
            with suppress(OSError):
                file.unlink()

    def newest_state(self) -> State | None:
        """Return the tensors and facts of the newest state that is intact, and skip others; None if there is no state.

        Raises:
            CheckpointError: there are states, but all of them are broken.
        """
        files = self._state_files()
        for file in files:
            with suppress(CheckpointError):
                return _read(file)
        if files:
            raise CheckpointError(
                f"no state in {self.states} is intact ({len(files)} are damaged); one is needed to resume. "
                "Start the run anew by --force instead of --resume."
            )
        return None

    def add_epoch(self, net: SwitchableModel, rows: Sequence[Row], *, is_best: bool) -> None:
        """Write the last network, also as the best one if it is that, and the rows of all epochs."""
        self._end_earlier()
        # First, so that the best of an earlier run is replaced at once and never stands next to a row of this one.
        if is_best:
            write_network(net, self.best)
        write_network(net, self.last)
        with replacing(self.config) as part:
            part.write_text(self._settings, encoding="utf-8")
        write_summary(self.path, rows)

    def best_epoch(self) -> int:
        """Return the epoch whose network is in the file of the best one."""
        return int((read_metadata(self.best).source.training or {})["epoch"])

    def _end_earlier(self) -> None:
        for file in self._state_files() if self._fresh else ():
            file.unlink(missing_ok=True)
        self._fresh = False

    def _state_files(self) -> list[Path]:
        """Return the states, the newest first."""
        return sorted(self.states.glob("?????????.safetensors"), reverse=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise CheckpointError(f"{folder} can't be written ({error}); a folder is needed.") from error


def _read(file: Path) -> State:
    header, tensors = read_header(file), read_tensors(file)
    text = header.get("rsconvert_state", "")
    if digest(tensors, text) != header.get("digest"):
        raise CheckpointError(f"{file} is damaged: its content does not fit its checksum.")
    try:
        held = parse_json(text)
        version, facts = held["version"], held["facts"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged: it lacks the facts of a state.") from error
    if version != _VERSION:
        raise CheckpointError(f"{file} has version {version}; {_VERSION} is known. Update rsconvert.")
    return tensors, facts
