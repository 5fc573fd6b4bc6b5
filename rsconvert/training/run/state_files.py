"""The states of a run on disk: written whole or not at all, checked when read, the newest few kept."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from rsconvert.checkpoint import digest, read_header, read_tensors, write_tensors
from rsconvert.errors import CheckpointError

__all__ = ["StateFiles"]

_VERSION = 1


class StateFiles:
    """The files ``NUMBER.safetensors`` of a folder, numbered in the order in which they are written."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def write(self, number: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Add a state; then remove all but the newest.

        Raises:
            CheckpointError: there is no room on the disk; the earlier states are intact.
        """
        text = json.dumps({"version": _VERSION, "facts": facts})
        checked = {"rsconvert_state": text, "digest": digest(tensors, text)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.folder} can't be made ({error}); a folder is needed. Make room.") from error
        write_tensors(tensors, self.folder / f"{number:09d}.safetensors", checked)
        for file in self._files()[self.keep :]:
            with suppress(OSError):
                file.unlink()

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the newest state that is intact, and skip others; None if there is none.

        Raises:
            CheckpointError: there are states, but all of them are broken.
        """
        broken = []
        for file in self._files():
            try:
                return _read(file)
            except CheckpointError as error:
                broken.append(str(error))
        if broken:
            raise CheckpointError(
                f"no state in {self.folder} is intact ({len(broken)} are damaged); one is needed to go on. "
                "Start the run anew by --force instead of --resume."
            )
        return None

    def clear(self) -> None:
        """Remove all states, those of an earlier run."""
        for file in self._files():
            file.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        """Return the states, the newest first."""
        return sorted(self.folder.glob("?????????.safetensors"), reverse=True)


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    header = read_header(file)
    text = header.get("rsconvert_state", "")
    tensors = read_tensors(file)
    if digest(tensors, text) != header.get("digest"):
        raise CheckpointError(f"{file} is damaged: its content does not fit its checksum. Remove it.")
    held = json.loads(text)
    if held["version"] != _VERSION:
        raise CheckpointError(f"{file} has version {held['version']}; {_VERSION} is known. Update rsconvert.")
    return tensors, held["facts"]
