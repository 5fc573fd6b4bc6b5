"""Measures every architecture of timm and torchvision, and writes the table that ``rsconvert models`` shows.

    python benchmarks/sweep.py
    python benchmarks/sweep.py --resume
    python benchmarks/sweep.py --only 'resnet1?,mobilenetv2*' --table some.json

Each model is measured in a worker process: one that hangs or dies costs its own row alone. Rows go to a file of JSON
lines as they come; ``--resume`` measures what that file lacks, and again what failed. Models run largest first,
together as far as their estimated memory allows. The smallest of each family are compared on batches, too.
"""

import argparse
import fnmatch
import itertools
import json
import os
import platform
import resource
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from workers import Job, run_jobs  # noqa: E402

from rsconvert.compatibility.table import Row, Table, totals, write_table  # noqa: E402

# A process that has held this much in GiB makes room for another: freed memory is not all given back.
_FULL = 6


def main() -> None:
    options = parse()
    if options.worker:
        work()
        return
    log = Log(options.rows, options.resume)
    names = selected_names(options.only, options.limit)
    run(options, log, [Job({"task": "count", "name": name}, 1) for name in names if log.lacks(name, "count")])
    bearing = [log.counted[name] for name in names if log.counted[name].batchnorms]
    chosen = smallest_of_families(bearing, at_least=120)
    run(options, log, [measuring(row, row.name in chosen) for row in bearing if log.lacks(row.name, "measure")])
    rows = tuple(log.row(name) for name in names)
    command = f"python benchmarks/sweep.py --workers {options.workers}"
    table = Table(versions(), command, hardware(), log.seconds(), rows)
    if target := options.table or (
        None if options.only or options.limit else ROOT / "rsconvert/compatibility/table.json"
    ):
        write_table(table, target)
    tell(table)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=Path, default=Path("sweep.jsonl"), help="file of JSON lines (sweep.jsonl)")
    parser.add_argument("--table", type=Path, help="table to write; a sweep over all models writes the package's")
    parser.add_argument("--resume", action="store_true", help="resume from the file of rows; else start again")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each (2)")
    parser.add_argument("--memory", type=float, default=20, help="GiB for all workers together (20)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one model (900)")
    parser.add_argument("--only", help="glob patterns of names, separated by commas")
    parser.add_argument("--limit", type=int, help="the first so many names")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def selected_names(only: str | None, limit: int | None) -> list[str]:
    from rsconvert.compatibility.check import all_names

    patterns = (only or "*").split(",")
    return [name for name in all_names() if any(fnmatch.fnmatch(name, p) for p in patterns)][:limit]


def smallest_of_families(rows: Sequence[Row], at_least: int) -> set[str]:
    """Return equally many of each family, the smallest, until there are enough."""
    families = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.parameters):
        families[row.family].append(row.name)
    chosen: set[str] = set()
    for members in itertools.zip_longest(*families.values()):
        if len(chosen) >= at_least:
            break
        chosen |= {name for name in members if name is not None}
    return chosen


def measuring(row: Row, in_batches: bool) -> Job:
    """Return the job of a model: the source, the network and their copies in the proof are there at once."""
    memory = 1.5 + 4 * 4 * row.parameters / 2**30
    return Job({"task": "measure", "name": row.name, "in_batches": in_batches}, memory)


def run(options: argparse.Namespace, log: "Log", jobs: list[Job]) -> None:
    """Measure the largest first: the small ones fill the gaps."""
    finished = 0

    def done(job: Job, answer: dict[str, Any]) -> None:
        nonlocal finished
        finished += 1
        row = log.add(job.request, answer)
        if job.request["task"] == "measure":
            seconds = sum(row.seconds.values())
            print(f"{finished}/{len(jobs)} {row.name} {row.size_class} {seconds:.1f} s", file=sys.stderr, flush=True)

    jobs.sort(key=lambda job: -job.memory)
    command = [sys.executable, str(Path(__file__).resolve()), "--worker"]
    run_jobs(jobs, command, done, workers=options.workers, memory=options.memory, timeout=options.timeout)


class Log:
    """The file of rows: a line for each, with the seconds of its run until then."""

    def __init__(self, path: Path, resume: bool) -> None:
        self.counted: dict[str, Row] = {}
        self.measured: dict[str, Row] = {}
        self.runs: dict[str, float] = {}
        text = path.read_text(encoding="utf-8") if resume and path.exists() else ""
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):  # a kill may have torn the last one
                self._note(json.loads(line))
        path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        self.file: TextIO = path.open("a", encoding="utf-8")
        self.run, self.start = f"{time.time():.0f}", time.monotonic()

    def add(self, request: dict[str, Any], answer: dict[str, Any]) -> Row:
        """Note an answer; an answer without a row is the failure of its model."""
        values = answer.get("row") or self._failed(request["name"], answer["error"]).to_dict()
        line = {"task": request["task"], "run": self.run, "at": round(time.monotonic() - self.start, 1), "row": values}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        return self._note(line)

    def lacks(self, name: str, task: str) -> bool:
        row = (self.counted if task == "count" else self.measured).get(name)
        return row is None or row.error is not None

    def row(self, name: str) -> Row:
        return self.measured.get(name) or self.counted[name]

    def seconds(self) -> float:
        """Return the time by the clock of all runs together."""
        return round(sum(self.runs.values()), 1)

    def _note(self, line: dict[str, Any]) -> Row:
        row = Row.from_dict(line["row"])
        (self.counted if line["task"] == "count" else self.measured)[row.name] = row
        self.runs[line["run"]] = line["at"]
        return row

    def _failed(self, name: str, reason: str) -> Row:
        from rsconvert.compatibility.check import family_of

        known = self.counted.get(name) or Row(name=name, family=family_of(name), parameters=0)
        return replace(known, error=reason)


def work() -> None:
    """Answer requests on stdin; what a model prints goes elsewhere."""
    answers, sys.stdout = sys.stdout, sys.stderr
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        answer = {"row": answered(json.loads(line)).to_dict(), "leaves": peak_gib() > _FULL}
        print(json.dumps(answer), file=answers, flush=True)


def answered(request: dict[str, Any]) -> Row:
    from rsconvert.compatibility.check import count, family_of, measure

    name = request["name"]
    try:
        return count(name) if request["task"] == "count" else measure(name, in_batches=request["in_batches"])
    except Exception as error:  # a row reports it, and the sweep continues
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        known = Row(name=name, family=family_of(name), parameters=0)
        return replace(known if request["task"] == "count" else count(name), error=reason)


def peak_gib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def versions() -> dict[str, str]:
    import timm
    import torch
    import torchvision

    import rsconvert

    return {m.__name__: m.__version__.partition("+")[0] for m in (rsconvert, timm, torchvision, torch)}


def hardware() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()}, no GPU"


def tell(table: Table) -> None:
    print(json.dumps({**totals(table.rows), "wall_seconds": table.seconds}, indent=1))
    for row in table.rows:
        wrong = [r for r, same in row.batches.items() if not same]
        if row.size_class == "failed" or row.unseen or wrong or row.training.get("same") is False:
            print(f"{row.name}: {row.error or ''} {row.different} {row.unseen} {wrong} {row.training.get('words', '')}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the rows until here are kept. Go on by --resume.")
