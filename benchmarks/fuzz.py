"""Damaged files: each kind that rsconvert opens is changed at random, opened, and run if it was accepted.

    python benchmarks/fuzz.py --files 500 --seed 0       # of each kind, in forked processes
    python benchmarks/fuzz.py --commands 500 --seed 0    # by commands, each in a forked process

Every file must be refused in one line, or run; what runs must compute what the sound file does, or differ by what
docs/checkpoint_format.md names as unchecked. A command must exit with 0, or with 1 and one line. A line for each kind
counts these, and what failed, with the slowest file in seconds of the processor and the most memory that one took. What
takes ten seconds is killed. What fails is written to the folder of ``--keep``.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from damaged import Kind, write_commands, write_kinds
from damaged.commands import Damaged, clean
from damaged.kinds import make_network
from forked import fork

from rsconvert.cli import main as command_line
from rsconvert.errors import RSConvertError

REFUSED, SAME = "refused", "accepted"
LIMIT = 10.0  # seconds of the processor
_SECOND = os.sysconf("SC_CLK_TCK")


def memory(name: str) -> int:
    """Return a line of Linux's status of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def outcome(path: Path, kind: Kind, sound: bytes, wanted: object) -> str:
    """Return ``accepted``, ``refused``, what explains a difference, or what failed."""
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            found = kind.run(path)
    except RSConvertError as error:
        return REFUSED if "\n" not in str(error) else f"several lines: {error}"
    except Exception as error:  # what no file may cause
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    if _equal(found, wanted):
        return SAME
    why = kind.explain(sound, path)
    return f"{SAME}, other {why}" if why else "accepted, and differs without a documented reason"


def _equal(found: Any, wanted: Any) -> bool:
    if not isinstance(wanted, list):
        return found == wanted
    pairs = zip(found, wanted, strict=False)
    return len(found) == len(wanted) and all(torch.equal(a, b) for a, b in pairs)


@dataclass
class Found:
    """How often the files of a kind ended in which way; the slowest in seconds, the largest in bytes."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    largest: int = 0

    def add(self, end: str, seconds: float, size: int) -> None:
        """Count a file."""
        self.counts[end] += 1
        self.slowest, self.largest = max(self.slowest, seconds), max(self.largest, size)

    def failed(self) -> dict[str, int]:
        """Return what no file may cause, and how often it came."""
        ends, other = (REFUSED, SAME, "exit 0", "exit 1"), f"{SAME}, other"
        return {name: n for name, n in self.counts.items() if name not in ends and not name.startswith(other)}

    def line(self, name: str) -> str:
        """Return the counts as a row of a table in Markdown."""
        other = sum(n for end, n in self.counts.items() if end.startswith(f"{SAME}, other"))
        refused, same = (self.counts[a] + self.counts[b] for a, b in ((REFUSED, "exit 1"), (SAME, "exit 0")))
        cost = f"{self.slowest:.2f} | {self.largest / 2**20:.0f}"
        return f"| {name} | {refused} | {same} | {other} | {sum(self.failed().values())} | {cost} |"


def in_child(work: Callable[[Callable[..., None]], None]) -> Iterator[list[Any]]:
    """Yield what ``work`` reports in a forked process; at last how that ended, if it did so before its work."""
    reading, writing = os.pipe()
    child = fork()
    if not child:
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            work(lambda *facts: (pipe.write(json.dumps(facts) + "\n"), pipe.flush()))
            pipe.write('["done"]\n')
        os._exit(0)
    os.close(writing)
    os.set_blocking(reading, False)
    last, text, killed = used(child), "", False
    while True:
        try:
            piece = os.read(reading, 65536).decode()
        except BlockingIOError:
            if killed := killed or used(child) - last > LIMIT:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.005)
            continue
        if not piece:
            break
        *lines, text = (text + piece).split("\n")
        for line in lines:
            last = used(child)
            yield json.loads(line)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if status:
        yield ["ended", f"killed after {LIMIT:g} s" if killed else f"the process ended with {status}"]


def used(child: int) -> float:
    """Return the seconds of the processor that a process took."""
    try:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _SECOND


def fuzz(kind: Kind, count: int, seed: int, keep: Path | None) -> Found:
    """Return what happened to so many damaged files of a kind; a child that ends early is followed by another."""
    sound, found, at = kind.path.read_bytes(), Found(), 0
    with torch.no_grad():
        wanted = kind.run(kind.path)

    def changed(index: int) -> bytes:
        rng = Random(f"{seed}-{kind.name}-{index}")
        return rng.choice([*kind.changes])(sound, rng)

    def work(report: Callable[..., None]) -> None:
        for index in range(at, count):
            kind.path.write_bytes(changed(index))
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the memory
            before, start = memory("VmRSS"), time.process_time()
            end = outcome(kind.path, kind, sound, wanted)
            report(end[:300], time.process_time() - start, memory("VmHWM") - before)

    while at < count:
        for facts in in_child(work):
            if facts[0] == "done":
                break
            end, seconds, size = facts if facts[0] != "ended" else (facts[1], LIMIT, 0)
            found.add(end, seconds, size)
            if keep is not None and end in found.failed():
                (keep / f"{kind.name}-{at}{kind.path.suffix}").write_bytes(changed(at))
            at += 1
    kind.path.write_bytes(sound)
    return found


def run_command(words: list[str], log: Path) -> str:
    """Run a command in this process; return how it ended."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            command_line(words)
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
    text = log.read_text(errors="replace")
    errors = [line for line in text.replace("\r", "\n").split("\n") if line.startswith("Error: ")]
    if "Traceback" in text or code not in (0, 1) or (code == 1) != (len(errors) == 1):
        return f"exit {code}: {text.strip()[-250:]}"
    return f"exit {code}"


def command_work(words: list[str], log: Path, report: Callable[..., None]) -> None:
    """Run a command, and report how it ended, the seconds and the bytes it took."""
    before = memory("VmRSS")
    report(run_command(words, log), time.process_time(), memory("VmHWM") - before)


def fuzz_commands(commands: list[Damaged], folder: Path, count: int, seed: int, keep: Path | None) -> Iterator[Any]:
    """Yield each command, with how it ended, the seconds and the bytes it took."""
    untouched = folder.with_name("untouched")
    shutil.copytree(folder, untouched)
    for index in range(count):
        rng = Random(f"{seed}-command-{index}")
        chosen = commands[index % len(commands)]
        chosen.path.write_bytes(data := rng.choice([*chosen.changes])(chosen.path.read_bytes(), rng))
        facts, *_ = in_child(partial(command_work, [*chosen.words], folder / "log"))
        end, seconds, size = facts if facts[0] != "ended" else (facts[1], LIMIT, 0)
        if keep is not None and end not in ("exit 0", "exit 1"):
            (keep / f"command-{index}-{chosen.path.name}").write_bytes(data)
        if end not in ("exit 0", "exit 1"):
            print(f"  {index}: {chosen.name}: {end!r}", flush=True)
        yield chosen, end, seconds, size
        clean(folder)
        shutil.rmtree(folder)
        shutil.copytree(untouched, folder)


HEAD = (
    "| kind | refused in one line | the same | another, as documented | failed | slowest (s of the processor) "
    "| most memory (MiB) |\n|---|---|---|---|---|---|---|"
)


def show(name: str, found: Found) -> None:
    """Print the row of a kind, and what failed."""
    print(found.line(name), flush=True)
    for end, number in found.failed().items():
        print(f"  {number} × {end[:300]!r}", flush=True)


def main() -> None:
    """Print what happened to the files of each kind, or to the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=0, help="of each kind")
    parser.add_argument("--commands", type=int, default=0, help="in all")
    parser.add_argument("--kinds", default="", help="those whose names hold one of these texts, with commas between")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="an existing folder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(HEAD)
    with tempfile.TemporaryDirectory() as name:
        folder, net, whole = Path(name) / "files", make_network(), Found()
        folder.mkdir()
        for kind in write_kinds(folder, net) if arguments.files else ():
            if any(part in kind.name for part in arguments.kinds.split(",")):
                found = fuzz(kind, arguments.files, arguments.seed, arguments.keep)
                whole.counts += found.counts
                whole.slowest, whole.largest = max(whole.slowest, found.slowest), max(whole.largest, found.largest)
                show(kind.name, found)
        if arguments.commands:
            place = Path(name) / "commands"
            place.mkdir()
            by_name: dict[str, Found] = {}
            commands = write_commands(place, make_network())
            for command, *facts in fuzz_commands(commands, place, arguments.commands, arguments.seed, arguments.keep):
                by_name.setdefault(command.name, Found()).add(*facts)
                whole.add(*facts)
            for command_name, found in by_name.items():
                show(command_name, found)
    show("all", whole)


if __name__ == "__main__":
    main()
