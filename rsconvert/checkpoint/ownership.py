"""Whose a folder is: one process at a time writes into that of a run; what a killed process left is recognised."""

import json
import os
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

__all__ = ["LOCK", "is_running", "left_behind", "owned", "temporary"]

LOCK = ".lock"
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


def left_behind(target: Path, ending: str) -> list[Path]:
    """Return the `temporary` files or folders of a target whose writers are gone.

    Whether a process of another host runs is not known here: what it writes counts as left behind after a day
    without a change.
    """
    start = f".{target.name}."
    with suppress(OSError):
        found = [p for p in target.parent.iterdir() if p.name.startswith(start) and p.name.endswith(f".{ending}")]
        return [path for path in found if _is_left(path, path.name[len(start) : -len(ending) - 1])]
    return []


def _host() -> str:
    """Return eight digits for the name of this host, which may be long."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _is_left(path: Path, writer: str) -> bool:
    host, _, pid = writer.partition("-")
    if not pid.isdecimal():
        return False
    return not is_running(int(pid)) if host == _host() else time.time() - path.stat().st_mtime > _LONG
