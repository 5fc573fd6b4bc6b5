"""Where an export goes: places that are free, and folders that are written whole or not at all."""

import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rsconvert.errors import CheckpointError, RSConvertError

__all__ = ["check_folder", "check_target", "numbered", "replacing_folder"]


def numbered(path: Path, resolutions: Sequence[int], *, is_folder: bool = False) -> dict[Path, int]:
    """Return the place of each resolution: ``path`` for a single one, else ``NAME-160.SUFFIX`` and so on."""
    if len(resolutions) == 1:
        return {path: resolutions[0]}
    stem, suffix = (path.name, "") if is_folder else (path.stem, path.suffix)
    return {path.with_name(f"{stem}-{resolution}{suffix}"): resolution for resolution in resolutions}


def check_target(path: Path, force: bool, suffixes: Sequence[str] = ()) -> None:
    """Refuse a place without a folder, one that is taken, unless ``force``, and another suffix than those named."""
    if suffixes and path.suffix not in suffixes:
        raise CheckpointError(f"{path} has the suffix {path.suffix!r}; {', '.join(suffixes)} is accepted. Rename it.")
    if not path.absolute().parent.is_dir():
        raise CheckpointError(f"{path.parent} is no folder; one that exists is needed. Create it, or check the path.")
    if path.exists() and not force:
        raise CheckpointError(f"{path} exists; a new name is needed. Choose another, or overwrite with --force.")


def check_folder(folder: Path, force: bool, names: Collection[str]) -> None:
    """Refuse a place as `check_target` does; with ``force``, one that is no folder or holds other files than named."""
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
    """Yield a temporary folder next to ``folder`` to write into; then put it in the place of ``folder``.

    A link is followed. An interruption or a full disk, a CheckpointError, leaves the old folder and no temporary one.
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
            "values, are needed. The old folder is untouched: make room, or choose another place."
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
