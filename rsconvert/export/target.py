"""Where an export goes, and the record of it: free places, folders written whole or not at all, what was written."""

import ctypes
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsconvert.checkpoint import clear, left_behind, scratch, sync, temporary
from rsconvert.data import crop_shares
from rsconvert.errors import CheckpointError, RSConvertError
from rsconvert.export.verification import Verification
from rsconvert.models import output_names
from rsconvert.surgery import FoldReport, SwitchableModel

__all__ = ["Exported", "check_folder", "check_target", "image_facts", "numbered", "replacing_folder"]

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


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
    try:
        for old in left_behind(target.parent, target.name, "old"):  # one that a killed process had moved aside
            if target.exists():
                clear(old)
            else:
                os.replace(old, target)
        with scratch(target, "part") as part:
            yield part
            _swap(part, target)
        sync(target.parent)
    except (OSError, TypeError, ValueError) as error:
        if isinstance(error, RSConvertError) and not isinstance(error, CheckpointError):
            raise
        reason = (isinstance(error, CheckpointError) and error.__cause__) or error
        raise CheckpointError(
            f"{folder} can't be written ({' '.join(str(reason).split())}); room on the disk, and model_kwargs of plain "
            "values, are needed. The old folder is untouched: make room, or choose another place."
        ) from error


def _swap(part: Path, target: Path) -> None:
    """Put one folder in the place of another; if that fails, the old one is back."""
    old = temporary(target, "old")
    try:
        if target.exists() and _exchange(part, target):
            return  # what was the old folder is now the temporary one, which the caller removes
        if target.exists():
            os.replace(target, old)
        os.replace(part, target)
    except BaseException:
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise
    clear(old)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change their names at once; return whether the system can."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, TypeError, AttributeError):  # macOS, Windows, an old C library
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


@dataclass(frozen=True)
class Exported:
    """What was written; an export of one file or folder is a path to it.

    ``files`` maps each file or folder to its resolution, None if it holds all. ``folding`` and ``verification`` report
    on those files whose BatchNorms were folded on request, and that were compared with the network. ``weights`` is a
    further file, from which the others read theirs. ``left_open`` is what a person has to fill in in a model card,
    ``address`` where a folder was uploaded to.
    """

    files: Mapping[Path, int | None]
    folding: Mapping[Path, FoldReport] = field(default_factory=dict)
    verification: Mapping[Path, Verification] = field(default_factory=dict)
    weights: Path | None = None
    left_open: Sequence[str] = ()
    address: str | None = None

    def __fspath__(self) -> str:
        if len(self.files) != 1:
            raise TypeError(f"the export has {len(self.files)} files; a path is needed. Take one of its files.")
        return str(next(iter(self.files)))

    def __str__(self) -> str:
        lines = [
            (self.verification.get(path), f"wrote {path} ({_held(side)})", self.folding.get(path))
            for path, side in self.files.items()
        ]
        found = [str(part) for line in lines for part in line if part is not None]
        found += [f"wrote {self.weights}, which these files read"] if self.weights else []
        found += [f"left to fill in in its README.md: {', '.join(self.left_open)}"] if self.left_open else []
        return "\n".join([*found, *([f"uploaded: {self.address}"] if self.address else [])])


def _held(side: int | None) -> str:
    return "switches between all resolutions" if side is None else f"{side} pixels"


def image_facts(net: SwitchableModel, resolution: int) -> dict[str, Any]:
    """Return the preprocessing of one resolution and what is known of the classes, as JSON has it."""
    source = net.source
    return {
        "architecture": source.architecture,
        "num_classes": source.num_classes,
        "resolution": resolution,
        **vars(source.preprocessing),
        "crop_pct": crop_shares(source.preprocessing, net.resolutions, [resolution])[0],
        "class_names": output_names(source),
        **({"task": source.task.name, "ignore_index": source.task.ignore_index} if source.task.dense else {}),
    }
