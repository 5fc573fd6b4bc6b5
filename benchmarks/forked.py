"""Commands of rsconvert in forked processes: torch is imported once, and a process can be made to die at a write.

Imported by ``faults.py``, ``restart.py`` and ``signals.py``, whose process must not compute with torch itself, and by
``fuzz.py``.
"""

import fcntl
import importlib
import mmap
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a fork keeps the thread alone that forks
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from safetensors import safe_open
from torch.optim.optimizer import register_optimizer_step_post_hook

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "shutil.rmtree")
_ROOM = 1 << 20
_TIMES = ("images_per_second", "percent_waiting")


@dataclass(frozen=True)
class Fault:
    """What befalls a process: SIGKILL at its ``write``-th change of a file or folder, after so many ``seconds``, or no
    file may grow beyond ``size`` bytes, of which it dies or, if ``is_error``, which it takes for a full disk."""

    write: int | None = None
    seconds: float | None = None
    size: int | None = None
    is_error: bool = False


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, or minus the signal; what it printed; how often it changed its folder."""

    status: int
    out: str
    err: str
    writes: int
    steps: int
    seconds: float


def fork() -> int:
    """Fork; return 0 in the child, which has new threads: torch replaces those of the parent when it is first asked,
    and ends the process if a thread asks it in the meantime."""
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
    return child


class Forked:
    """A process that does ``work`` in a folder, in a session of its own."""

    def __init__(self, work: Callable[[], object], folder: Path, fault: Fault | None = None) -> None:
        self.fault = fault or Fault()
        self._pipes = [os.pipe() for _ in range(2)]
        for _, end in self._pipes:
            fcntl.fcntl(end, getattr(fcntl, "F_SETPIPE_SZ", 1031), _ROOM)
        self._counts, self._start = mmap.mmap(-1, 16), time.monotonic()
        self.pid = fork()
        if self.pid == 0:
            self._become(work, folder)
        for _, end in self._pipes:
            os.close(end)

    @property
    def writes(self) -> int:
        """How often it changed a file or folder below its own."""
        return int(struct.unpack_from("q", self._counts, 0)[0])

    @property
    def steps(self) -> int:
        """How many steps its optimizers took."""
        return int(struct.unpack_from("q", self._counts, 8)[0])

    def wait(self, longest: float = 600) -> Ended:
        """Wait until it ends; kill it after its fault's seconds, or the longest time."""
        ended, status, limit = 0, 0, self.fault.seconds or longest
        while not ended:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if not ended and time.monotonic() - self._start > limit:
                self.send(signal.SIGKILL)
            time.sleep(0.002)
        seconds = time.monotonic() - self._start
        return Ended(os.waitstatus_to_exitcode(status), *map(_drained, self._pipes), self.writes, self.steps, seconds)

    def send(self, number: int, *, group: bool = False) -> None:
        """Send a signal to it, or to it and its workers."""
        (os.killpg if group else os.kill)(self.pid, number)

    def has_ended(self) -> bool:
        """Return whether it has ended; it can still be waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def has_workers(self) -> bool:
        """Return whether something of its session runs, once it was waited for."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _become(self, work: Callable[[], object], folder: Path) -> None:
        status = 70
        try:
            os.setsid()
            # What a shell starts in the background, or nohup, ignores some of them.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            for number, (_, end) in enumerate(self._pipes, start=1):
                os.dup2(end, number)
            os.chdir(folder)
            _limit(self.fault)
            sys.addaudithook(self._watch(f"{folder}{os.sep}"))
            register_optimizer_step_post_hook(lambda *_: self._count(8))
            work()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _count(self, place: int) -> int:
        (number,) = struct.unpack_from("q", self._counts, place)
        struct.pack_into("q", self._counts, place, number + 1)
        return int(number) + 1

    def _watch(self, root: str) -> Callable[[str, tuple[Any, ...]], None]:
        own = os.getpid()

        def see(event: str, arguments: tuple[Any, ...]) -> None:
            if not (event in _CHANGES or (event == "open" and _writes(arguments))) or os.getpid() != own:
                return
            named = arguments[0]
            inside = isinstance(named, str | os.PathLike) and os.path.abspath(os.fspath(named)).startswith(root)
            if inside and self._count(0) == self.fault.write:
                os.kill(own, signal.SIGKILL)

        return see


def command(*arguments: str) -> Callable[[], object]:
    """Return the work of a command line, without the program's name."""

    def work() -> object:
        from rsconvert.cli import main

        return main(list(arguments), prog_name="rsconvert")

    return work


def run(work: Callable[[], object], folder: Path, fault: Fault | None = None) -> Ended:
    """Return how a process ended that did ``work`` in a folder."""
    return Forked(work, folder, fault).wait()


def import_all(*names: str) -> None:
    """Import what the commands import as they go, so that forks have it."""
    for name in names:
        importlib.import_module(name)


def same_tensors(one: Path, other: Path) -> bool:
    """Return whether two safetensors files hold the same bits under the same names, without computing in threads."""
    with safe_open(one, "pt") as first, safe_open(other, "pt") as second:
        names = list(first.keys())
        return names == list(second.keys()) and all(
            torch.equal(first.get_tensor(name), second.get_tensor(name)) for name in names
        )


def summary_rows(folder: Path) -> list[list[str]]:
    """Return the rows of each ``summary.csv`` below a folder, without what depends on time."""
    rows = []
    for file in sorted(folder.rglob("summary.csv")):
        names, *lines = [line.split(",") for line in file.read_text(encoding="utf-8").splitlines()]
        kept = [place for place, name in enumerate(names) if name not in _TIMES]
        rows += [[line[place] for place in kept] for line in lines]
    return rows


def _limit(fault: Fault) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if fault.size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.size, fault.size))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN if fault.is_error else signal.SIG_DFL)


def _writes(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) == 3 and isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))


def _drained(pipe: tuple[int, int]) -> str:
    reader, _ = pipe
    os.set_blocking(reader, False)
    pieces = []
    try:
        while piece := os.read(reader, _ROOM):
            pieces.append(piece)
    except BlockingIOError:  # a worker holds the other end
        pass
    os.close(reader)
    return b"".join(pieces).decode(errors="replace")
