"""Requests to stop at finetune and compare: what each signal, to the process or to its group, leaves and loses.

    python benchmarks/signals.py --seed 0

Each run has a worker process that reads images. A signal comes at a random time of the training; once also as soon as
the folder is there, when workers start, and once three times in a row. The run must end with status 1 and one line
without a traceback, its workers too, and the same command must resume bit-exactly.
Steps of the optimizer are counted: what is lost is what both runs took beyond those of the unbroken one. A second run
in the folder of one that has just begun must be refused in one line. The exit status is 1 if something else came.
"""

import argparse
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from forked import Ended, Forked, command, import_all, run, same_tensors, summary_rows

from rsconvert.checkpoint.ownership import LOCK
from rsconvert.demo import write_images

SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
Command = Callable[[], object]


@dataclass(frozen=True)
class Stoppable:
    """A command that can go on where it was stopped, what it writes into, and the files that must be the same."""

    work: Command
    folder: str
    files: Sequence[str]


@dataclass(frozen=True)
class Case:
    """A signal, to the process or its group, so often, at a moment: 0 is the beginning of the training, 1 its end."""

    number: signal.Signals
    group: bool
    moment: float
    times: int = 1

    def __str__(self) -> str:
        often = "" if self.times == 1 else f", {self.times} times"
        return f"{self.number.name} to the {'group' if self.group else 'process'} at {self.moment:.0%}{often}"


def prepare(base: Path) -> None:
    """Write drawings and a network."""
    for split, count in (("train", 16), ("val", 2)):
        write_images(base / "images", split, count, np.random.default_rng(count))
    model = ("wrap", "test_efficientnet", "--no-pretrained", "--num-classes", "6", "--resolutions", "48,32")
    made = run(command(*model, "-o", "net.safetensors"), base)
    assert made.status == 0, made.err


def commands(base: Path, epochs: int) -> dict[str, Stoppable]:
    """Return the commands by name; each writes into the folder in which it runs."""
    shared = (f"{base}/net.safetensors", "--data", f"{base}/images", "--workers", "1", "--batch-size", "8", "--json")
    more = ("--set", "probe_epochs=0", "--epochs")
    tuned, methods = ("last.safetensors", "best.safetensors"), ("parallel", "rsnet")
    compared = ("--output", "c", "--methods", ",".join(methods), "--seeds", "0")
    return {
        "finetune": Stoppable(
            command("finetune", *shared, *more, str(2 * epochs), "--output", "run", "--resume"),
            "run",
            [f"run/{name}" for name in tuned],
        ),
        "compare": Stoppable(
            command("compare", *shared, *more, str(epochs), *compared),
            "c",
            [f"c/{method}/seed-0/{name}" for method in methods for name in tuned],
        ),
    }


def cases(rng: random.Random) -> list[Case]:
    """Return each signal to process and group at a random moment, one as workers start, and one that is repeated."""
    usual = [Case(number, group, rng.uniform(0.05, 0.95)) for number in SIGNALS for group in (True, False)]
    return [*usual, Case(signal.SIGINT, True, 0), Case(signal.SIGINT, True, rng.uniform(0.05, 0.9), times=3)]


def stopped(chosen: Stoppable, case: Case, place: Path, whole: Ended) -> tuple[Ended, list[str]]:
    """Return how a run ended that got a signal, and what was wrong with it."""
    process, wrong = Forked(chosen.work, place), []
    lock, target = place / chosen.folder / LOCK, case.moment * whole.steps
    while not process.has_ended() and not (lock.exists() and lock.stat().st_size and process.steps >= target):
        time.sleep(0.001)
    if case.moment == 0:
        process.send(signal.SIGSTOP)
        wrong += refused_second(chosen, place)
        process.send(signal.SIGCONT)
    for _ in range(case.times):
        process.send(case.number, group=case.group)
        time.sleep(0.02 * (case.times > 1))
    ended = process.wait(120)
    lines = [line for line in ended.err.splitlines() if line.startswith("Error: ")]
    if ended.status != 1 or len(lines) != 1 or not lines[0].startswith("Error: interrupted; "):
        wrong.append(f"it ended with {ended.status} and {ended.err[-500:]!r}")
    wrong += [word for word in ("Traceback", "Exception ignored", "memory", "disk") if word in ended.err]
    time.sleep(0.2)
    return ended, wrong + (["its worker goes on"] if process.has_workers() else [])


def refused_second(chosen: Stoppable, place: Path) -> list[str]:
    """Return what was wrong with a second run in the folder of one that goes on."""
    second = run(chosen.work, place)
    if second.status == 1 and re.search(r"\AError: .* is in use by .*\Z", second.err.splitlines()[-1]):
        return []
    return [f"a second run ended with {second.status} and {second.err[-300:]!r}"]


def tried(chosen: Stoppable, case: Case, base: Path, whole: Ended) -> tuple[str, list[str]]:
    """Stop a command and let it go on; return a line about it, and what was wrong."""
    place = base / "trial"
    place.mkdir()
    ended, wrong = stopped(chosen, case, place, whole)
    again = run(chosen.work, place)
    lost = ended.steps + again.steps - whole.steps
    wrong += [] if again.status == 0 else [f"it does not go on: {again.err[-500:]!r}"]
    if again.status == 0:
        wrong += [f"{name} differs" for name in chosen.files if not same_tensors(base / "whole" / name, place / name)]
        wrong += [] if summary_rows(base / "whole") == summary_rows(place) else ["summary.csv differs"]
    wrong += [f"{lost} steps are lost"] if not 0 <= lost <= 1 else []
    shutil.rmtree(place)
    said = ended.err.strip().rpartition("Error: ")[2]
    return f"status {ended.status}, {ended.steps} of {whole.steps} steps done, {lost} lost; {said!r}", wrong


def main() -> int:
    """Print a line for each signal to each command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--commands", default="finetune,compare", help="(finetune,compare)")
    parser.add_argument("--cases", type=int, default=8, help="the last so many of each command (8, all)")
    parser.add_argument("--epochs", type=int, default=2, help="of each run of compare; twice as many of finetune (2)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    options, failed = parser.parse_args(), 0
    with tempfile.TemporaryDirectory() as name:
        import_all("rsconvert.cli", "rsconvert.wrapping", "rsconvert.training")
        prepare(Path(name))
        for chosen in options.commands.split(","):
            base, known = Path(name) / chosen, commands(Path(name), options.epochs)[chosen]
            (base / "whole").mkdir(parents=True)
            whole = run(known.work, base / "whole")
            assert whole.status == 0, whole.err
            for case in cases(random.Random(f"{options.seed}-{chosen}"))[-options.cases :]:
                said, wrong = tried(known, case, base, whole)
                print(f"{chosen}, {case}: {said}", *(f"  wrong: {text}" for text in wrong), sep="\n", flush=True)
                failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
