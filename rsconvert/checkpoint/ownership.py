"""Whose a folder is: one process at a time writes into that of a run; what a killed process left is recognised."""

import json
import os
import re
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rsconvert.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "clear", "holds_nothing", "is_running", "left_behind", "owned", "scratch", "temporary"]

LOCK = ".lock"
_TEMPORARY = re.compile(r"\.(.+)\.([0-9a-f]{8})-(\d{1,10})\.(part|scratch|old)", re.DOTALL)
# After so many seconds without a change, a temporary file of another host counts as left behind.
_LONG = 86_400


@contextmanager
def owned(folder: str | Path) -> Iterator[None]:
    """Keep every other process out of a folder that exists, by a lock that ends with this process.

    The file ``.lock`` names process and host. The system holds the lock itself, over a network as far as its file
    system does, so that of a process that was killed is free.

    Raises:
        CheckpointError: another process has the folder.
    """
    file = Path(folder) / LOCK
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _taken(descriptor) or _is_another(file, descriptor):
            raise CheckpointError(
                f"{folder} is in use by {_owner(file)}; one run at a time writes into a folder. Wait for that one, or "
                "choose another folder."
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        try:
            yield
        finally:
            with suppress(OSError):
                file.unlink()
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Take the lock of the system; return whether it was free. Where there is none, the process named in it counts."""
    if fcntl is None:
        return not _names_running(os.pread(descriptor, 1000, 0))
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return not _names_running(os.pread(descriptor, 1000, 0))
    return True


def _is_another(file: Path, descriptor: int) -> bool:
    """Return whether the file was removed and made again meanwhile: the lock of this descriptor holds nothing."""
    with suppress(OSError):
        return file.stat().st_ino != os.fstat(descriptor).st_ino
    return True


def _owner(file: Path) -> str:
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        return f"process {int(held['pid'])} on {str(held['host'])[:60]!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _names_running(text: bytes) -> bool:
    try:
        held = json.loads(text)
        here = held["host"] == socket.gethostname()
        return held["pid"] != os.getpid() and here and is_running(int(held["pid"]))
    except (ValueError, KeyError, TypeError):
        return False


def is_running(pid: int) -> bool:
    """Return whether a process of this machine exists; on Windows, where asking could end it, always."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


def temporary(target: Path, ending: str) -> Path:
    """Return where this process writes what will replace ``target``: ``.NAME.HOST-PID.ENDING`` next to it."""
    return target.parent / f".{target.name}.{_host()}-{os.getpid()}.{ending}"


@contextmanager
def scratch(target: Path, ending: str) -> Iterator[Path]:
    """Yield an empty folder, `temporary`, for what is not finished; nothing of it stays.

    What killed processes left of theirs is removed first.

    Raises:
        OSError: the folder can't be made.
    """
    folder = temporary(target, ending)
    # The folder itself too: in a container the next process may have the same number.
    for old in (*left_behind(target.parent, target.name, ending), folder):
        clear(old)
    folder.mkdir()
    try:
        yield folder
    finally:
        clear(folder)


def left_behind(folder: Path, name: str | None = None, ending: str | None = None) -> list[Path]:
    """Return the `temporary` files and folders in a folder whose writers are gone.

    Whether a process of another host runs is not known here: what it writes counts as left behind after a day
    without a change.

    Args:
        name: of their target; of any by default.
        ending: ``part``, ``scratch`` or ``old``; any by default.
    """
    with suppress(OSError):
        entries = [(path, _TEMPORARY.fullmatch(path.name)) for path in folder.iterdir()]
        found = [(path, parts) for path, parts in entries if parts and name in (None, parts[1])]
        return [p for p, parts in found if ending in (None, parts[4]) and _is_left(p, parts[2], int(parts[3]))]
    return []


def _host() -> str:
    """Return eight digits for the name of this host, which may be long."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _is_left(path: Path, host: str, pid: int) -> bool:
    return not is_running(pid) if host == _host() else time.time() - path.stat().st_mtime > _LONG


def holds_nothing(folder: Path) -> bool:
    """Return whether a folder is empty, but for a lock and what killed processes left."""
    return all(path.name == LOCK or path in left_behind(folder) for path in folder.iterdir())


def clear(path: Path) -> None:
    """Remove a temporary file or folder, as far as that works."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
