"""Attempts of files to run code, to reach the network, or to mislead whoever reads what is printed of them.

    python benchmarks/attempts.py            # a line for each attempt, and how many succeeded
    python benchmarks/attempts.py --table    # the table of docs/security.md

An attempt succeeds if its canary is seen: a file that its code would write, a process or a connection that it would
start, or a mark in what is printed. Each must end in one line of rsconvert's own error, or do nothing. The controls
open some of the same files with readers that trust them: there the canary must be seen.
"""

import argparse
import io
import os
import socket
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["HF_HUB_OFFLINE"] = "0"  # else the hub's client would hide that it was asked

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from hostile import ATTEMPTS, CONTROLS, Attempt, MisledError, Sound

from rsconvert.errors import RSConvertError
from rsconvert.text import Table

HARMLESS, REFUSED, SUCCEEDED = "harmless", "refused", "SUCCEEDED"


class Watch:
    """Notices processes and connections that start while it is entered, and stops them; ``seen`` names them."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Watch until the end of the block."""
        with ExitStack() as stack:
            for owner, name in (
                (socket.socket, "connect"),
                (socket.socket, "connect_ex"),
                (socket, "getaddrinfo"),
                (socket, "create_connection"),
                (subprocess.Popen, "__init__"),
            ):
                stack.enter_context(patch.object(owner, name, self._noticed(name)))
            yield

    def _noticed(self, name: str) -> Any:
        def stopped(*_: Any, **__: Any) -> Any:
            self.seen.append(name)
            raise OSError(f"stopped: {name}")

        return stopped


def outcome(attempt: Attempt, sound: Sound, folder: Path) -> tuple[str, str]:
    """Return how an attempt ended, and what was said or seen."""
    canary, watch = folder / "canary", Watch()
    (folder / "files").mkdir()
    end, said = HARMLESS, ""
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        reader = attempt.prepare(sound, folder / "files", canary)
        with watch.entered(), redirect_stdout(io.StringIO()):
            try:
                reader()
            except MisledError as mark:
                watch.seen.append(str(mark))
            except RSConvertError as error:
                end, said = REFUSED, str(error)
            except Exception as error:  # what no file may cause; expected of a control
                end, said = f"{type(error).__name__}: {error}", ""
    made = [*map(str, folder.parent.rglob("canary"))]
    if made or watch.seen:
        return SUCCEEDED, ", ".join([*made, *watch.seen])
    return (end, said) if "\n" not in said else (f"several lines: {said}", "")


def run(attempts: Sequence[Attempt], sound: Sound) -> Iterator[tuple[Attempt, str, str]]:
    """Yield each attempt with its end and what was said, each in a folder of its own."""
    for attempt in attempts:
        with tempfile.TemporaryDirectory() as folder:
            inner = Path(folder) / "attempt"
            inner.mkdir()
            yield (attempt, *outcome(attempt, sound, inner))


def _grouped(names: Sequence[str]) -> str:
    """Return names in one line, what stands before their colon once."""
    groups: dict[str, list[str]] = {}
    for name in names:
        group, _, own = name.rpartition(": ")
        groups.setdefault(group, []).append(own)
    return "; ".join((f"{group}: " if group else "") + " · ".join(own) for group, own in groups.items())


def main() -> None:
    """Print each attempt with its end; exit with 1 if one succeeded, or a control did not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="a table of Markdown")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sound = Sound(Path(folder))
        ends: Counter[str] = Counter()
        names: dict[tuple[str, str], list[str]] = {}
        for attempt, end, said in run(ATTEMPTS, sound):
            ends[end] += 1
            names.setdefault((attempt.kind, end), []).append(attempt.name)
            if not arguments.table:
                print(f"{attempt.kind}: {attempt.name}: {end} {said[:160]}", flush=True)
        if arguments.table:
            rows = [(kind, end, len(found), _grouped(found)) for (kind, end), found in names.items()]
            print(Table(("kind", "end", "attempts", "what the file tries"), rows).as_markdown())
        controls = [end for _, end, _ in run(CONTROLS, sound)]
    bad = sum(count for end, count in ends.items() if end not in (HARMLESS, REFUSED))
    print(
        f"\n{ends.total()} attempts: {ends[SUCCEEDED]} succeeded, {ends[REFUSED]} refused in one line, "
        f"{ends[HARMLESS]} without effect, {bad - ends[SUCCEEDED]} ended in another way; "
        f"{controls.count(SUCCEEDED)} of {len(controls)} controls succeeded"
    )
    sys.exit(bad > 0 or controls.count(SUCCEEDED) < len(controls))


if __name__ == "__main__":
    main()
