"""The place that an export is to take."""

from collections.abc import Sequence
from pathlib import Path

from rsconvert.errors import CheckpointError

__all__ = ["check_target"]


def check_target(path: Path, force: bool, suffixes: Sequence[str] = ()) -> None:
    """Refuse a place without a folder, one that is taken, unless ``force``, and another suffix than those named.

    Raises:
        CheckpointError: the place is none for the export.
    """
    if suffixes and path.suffix not in suffixes:
        raise CheckpointError(f"{path} has the suffix {path.suffix!r}; {', '.join(suffixes)} is accepted. Rename it.")
    if not path.absolute().parent.is_dir():
        raise CheckpointError(f"{path.parent} is no folder; one that exists is needed. Create it, or check the path.")
    if path.exists() and not force:
        raise CheckpointError(f"{path} exists; a new name is needed. Choose another, or overwrite with --force.")
