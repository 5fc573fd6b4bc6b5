"""Folders of exports, written whole or not at all."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from rsconvert.errors import CheckpointError, RSConvertError
from rsconvert.export.target import check_target

__all__ = ["check_folder", "replacing_folder"]


def check_folder(folder: Path, names: Collection[str], force: bool) -> None:
    """Refuse a place that is taken; with ``force``, one that is no folder, or holds other files than those named.

    Raises:
        CheckpointError: the place is none for the export.
    """
    check_target(folder, force)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; this export is a folder. Choose another name.")
    if foreign := sorted({entry.name for entry in folder.iterdir()} - set(names)):
        raise CheckpointError(
            f"{folder} holds {foreign[0]}; only a folder with nothing but {', '.join(sorted(names))} is replaced. "
            "Choose another folder, or move the file away."
        )


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder`` to write into; then put it in the place of ``folder``.

    A link is followed. An interruption leaves the old folder, and no temporary one.

    Raises:
        CheckpointError: the disk is full, or a file can't be written.
    """
    target = Path(os.path.realpath(folder))
    part = target.parent / f".{target.name}.{os.getpid()}.part"
    try:
        part.mkdir()
        yield part
        _swap(part, target)
    except (OSError, TypeError, ValueError) as error:
        if isinstance(error, RSConvertError) and not isinstance(error, CheckpointError):
            raise
        reason = (isinstance(error, CheckpointError) and error.__cause__) or error
        raise CheckpointError(
            f"{folder} can't be written ({' '.join(str(reason).split())}); room on the disk, and model_kwargs of plain "
            "values, are needed. What stood there is untouched: make room, or choose another place."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _swap(part: Path, target: Path) -> None:
    """Put one folder in the place of another; if that fails, the old one is back."""
    old = target.parent / f".{target.name}.{os.getpid()}.old"
    try:
        if target.exists():
            os.replace(target, old)
        os.replace(part, target)
    except BaseException:
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
