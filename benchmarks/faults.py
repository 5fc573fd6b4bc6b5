"""Faults at writes: each command that writes is killed, or its disk is full; the old file must be left, or the new one.

    python benchmarks/faults.py --kills 10 --seed 0            # of each command
    python benchmarks/faults.py --full 4 --mount --commands wrap,report

Half of the kills come at a change of a file or folder, the others in turn within a write, by a limit of the file's
size, and at a random time. After each kill every file must be whole: the old one, the new one, or, where a command
writes a file repeatedly, a sound one. Where something temporary is left, the same command must then remove it, and
give the same as if nothing had happened. A full disk is that limit as an error, or with ``--mount``, for root, a file
system of its own with too little room; it must be one line, the old file and nothing else. The exit status is 1 if
something else came.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from forked import Ended, Fault, command, import_all, run
from PIL import Image
from safetensors import safe_open

import rsconvert.demo
from rsconvert.demo import run_demo, write_images
from rsconvert.runtime.cascade_report import CascadeReport

_PARTS = ("cli", "wrapping", "calibration", "training", "evaluation", "export", "runtime", "study")
_LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
_WRAP = ("wrap", "test_efficientnet", "--no-pretrained", "--num-classes", "6", "--resolutions", "48,32")
_DENSE = """
from torch import nn
def build(num_classes=2):
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, num_classes, 1))
"""
Work = Callable[[], object]


@dataclass(frozen=True)
class Writer:
    """A command that writes: the work that leaves the old files and that which replaces them.

    ``repeats`` says that it writes some files more than once, so that a killed one may leave others than old and new;
    ``together``, that its files are one folder, which is old or new as a whole; ``timed``, that they hold times, so
    that numbers are left out of comparisons.
    """

    old: Work
    new: Work
    repeats: bool = False
    together: bool = False
    timed: bool = False


@dataclass
class Found:
    """What came of the faults of a command: how many befell it, what they left, and what was wrong."""

    faults: int = 0
    left: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def prepare(base: Path) -> None:
    """Write what the commands read: drawings, a network of classes, one with a cascade's gain, a run, one of masks."""
    for split, count in (("train", 6), ("val", 4)):
        write_images(base / "images", split, count, np.random.default_rng(count))
    (base / "dense.py").write_text(_DENSE)
    dense = ("wrap", "dense.py:build", "--resolutions", "48,32", "--task", "segmentation")
    tuning = ("--data", "images", "--epochs", "2", "--batch-size", "8", "--workers", "0", "--set", "probe_epochs=0")
    for arguments in (
        (*_WRAP, "-o", "net.safetensors"),
        (*dense, "-o", "dense.safetensors"),
        ("finetune", "net.safetensors", *tuning, "--output", "run", "--json"),
    ):
        made = run(command(*arguments), base)
        assert made.status == 0, made.err


def writers(base: Path) -> dict[str, Writer]:
    """Return the commands by name; each writes into the folder in which it runs."""
    net, tuned, images = f"{base}/net.safetensors", f"{base}/run", ("--data", f"{base}/images")
    few, photos = (*images, "--workers", "0"), (f"{base}/images/val/grid", f"{base}/images/val/waves")
    training = (*few, "--batch-size", "8", "--json", "--set", "probe_epochs=0")
    masks = ("predict", f"{base}/dense.safetensors", "--model", f"{base}/dense.py:build")

    def pair(*arguments: str, old: tuple[str, ...], new: tuple[str, ...], **how: bool) -> Writer:
        force = () if arguments[0] == "compare" else ("--force",)
        return Writer(command(*arguments, *force, *old), command(*arguments, *force, *new), **how)

    def seeds(*arguments: str, **how: bool) -> Writer:
        return pair(*arguments, old=("--seed", "1"), new=("--seed", "2"), **how)

    def places(*arguments: str, together: bool = False) -> Writer:
        first, *others = arguments
        return Writer(*(command(first, p, *others, "--force") for p in (net, tuned)), together=together)

    def noted(*arguments: str) -> Writer:
        """Of a command that adds figures with times to a network."""

        def work() -> object:
            CascadeReport.gains = True  # type: ignore[assignment, method-assign] # a few drawings decide nothing
            return command(*arguments)()

        return Writer(lambda: shutil.copy(net, "n.safetensors"), work, timed=True)

    def drawn(seed: int) -> Work:
        def work() -> object:
            rsconvert.demo.run_demo = partial(run_demo, images_per_class=6, epochs=(2, 2))  # a quick one
            return command("demo", "-o", "demo", "--seed", str(seed), "--force")()

        return work

    onnx = ("export", "--format", "onnx", "-o", "n.onnx")
    return {
        "wrap": pair(*_WRAP, "-o", "n.safetensors", old=(), new=("--interpolation", "bicubic")),
        "calibrate": seeds("calibrate", net, *few, "--images", "8", "-o", "n.safetensors"),
        "quantize": seeds("quantize", net, *few, "--images", "8", "-o", "n.safetensors"),
        "finetune": seeds("finetune", net, *training, "--epochs", "2", "--output", "run", repeats=True, timed=True),
        "evaluate": places("evaluate", *few, "-o", "table.csv", "--logits", "logits.safetensors"),
        "predict": pair(
            "predict", tuned, *photos, "--workers", "0", "-o", "p.json", old=("--top-k", "1"), new=("--top-k", "2")
        ),
        "predict masks": Writer(
            *(command(*masks, *photos[:1], "--resolution", r, "-o", "masks", "--force") for r in ("48", "32"))
        ),
        "report": seeds("report", tuned, *few, "--examples", "4", "-o", "r.html"),
        "analyze batchnorm": Writer(
            *(command("analyze", "batchnorm", p, "-o", "figures", "--force") for p in (net, tuned))
        ),
        "analyze accuracy": Writer(
            *(command("analyze", "accuracy", p, *few, "-o", "figures", "--force") for p in (net, tuned))
        ),
        "benchmark --store": noted("benchmark", "n.safetensors", "--store", "--rounds", "1", "--forms", "plain"),
        "cascade": noted("cascade", tuned, *few, "--accuracy", "10", "-o", "n.safetensors", "--force"),
        "export switchable": places("export", "-o", "n.safetensors"),
        "export timm": places("export", "--format", "timm", "--resolution", "32", "-o", "timm", together=True),
        "export program": places("export", "--format", "program", "--resolution", "32", "-o", "n.pt2"),
        "export onnx": places(*onnx),
        "export onnx twice": places(*onnx, "--resolution", "48,32"),
        "export hub": places("export", "--format", "hub", "-o", "hub", together=True),
        "compare": pair(
            "compare", net, *training, "--epochs", "1", "--methods", "parallel,source", "--output", "c",
            old=("--seeds", "1"), new=("--seeds", "1,2"), repeats=True, timed=True,
        ),
        "demo": Writer(drawn(1), drawn(2), together=True, timed=True),
    }  # fmt: skip


def content(file: Path, timed: bool = False) -> object:
    """Return what a file holds, without numbers in its texts if these are timed; raise if it is not whole."""
    text = without_numbers if timed else str
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name).numpy().tobytes() for name in opened.keys()}  # noqa: SIM118
            return tensors, text(json.dumps(opened.metadata(), sort_keys=True))
    if file.suffix == ".png":
        with Image.open(file) as image:
            return image.size, image.tobytes()
    if file.suffix == ".json":
        return text(json.dumps(json.loads(file.read_text())))
    data = file.read_bytes()
    assert data, "it is empty"
    return text(data.decode()) if file.suffix in (".html", ".md", ".csv", ".svg") else data


def without_numbers(text: str) -> str:
    """Return a text without numbers and without the checksums of those."""
    return re.sub(r"[0-9a-f]{16,}|\d+(\.\d+)?(e-?\d+)?", "#", text)


def tree(folder: Path) -> dict[str, Path]:
    """Return the files and empty folders below a folder by name."""
    return {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file() or not any(p.iterdir())}


def contents(folder: Path, timed: bool) -> dict[str, object]:
    """Return what each file below a folder holds, but for temporary ones."""
    files = {name: file for name, file in tree(folder).items() if not is_temporary(name)}
    return {name: content(file, timed) if file.is_file() else None for name, file in files.items()}


def is_temporary(name: str) -> bool:
    """Return whether a file or folder is none that a user asked for."""
    return any(part.startswith(".") and part != ".rsconvert-demo" for part in Path(name).parts)


class Trial:
    """A command with what it leaves when nothing happens."""

    def __init__(self, writer: Writer, place: Path) -> None:
        self.writer, self.place, self.folder = writer, place, place / "trial"
        for name, work in (("old", writer.old), ("new", writer.new)):
            shutil.copytree(place / "old", place / name) if name == "new" else (place / name).mkdir()
            self.normal = self.finished(work, place / name)
        self.old, self.new = (contents(place / name, writer.timed) for name in ("old", "new"))
        assert self.old != self.new, "old and new are the same"
        self.largest = max(file.stat().st_size for file in tree(place / "new").values())

    def finished(self, work: Work, folder: Path) -> Ended:
        """Do work that must end well."""
        ended = run(work, folder)
        assert ended.status == 0, ended.err
        return ended

    def begin(self) -> None:
        """Put the old files into an empty folder."""
        shutil.copytree(self.place / "old", self.folder, dirs_exist_ok=True)

    def damage(self) -> Iterator[str]:
        """Yield what a fault must not leave."""
        found, states = tree(self.folder), set()
        for name in (self.old.keys() & self.new.keys()) - found.keys():
            if not (self.writer.repeats and "state" in Path(name).parts):  # the states of a run end with the next one
                yield f"{name} is gone"
        for name, file in found.items():
            if is_temporary(name):
                continue
            try:
                held = content(file, self.writer.timed) if file.is_file() else None
            except Exception as error:
                yield f"{name} is half: {error!r}"
                continue
            known = [state for state in ("old", "new") if held == getattr(self, state).get(name, self)]
            states.update(known[:1] if len(known) == 1 else ())
            if not known and not self.writer.repeats:
                yield f"{name} is neither old nor new"
        if self.writer.together and len(states) > 1:
            yield "files of the old folder among new ones"

    def held(self) -> dict[str, object]:
        """Return what each file holds."""
        return contents(self.folder, self.writer.timed)

    def state(self) -> str:
        """Return whether the old files are left, or the new ones, or some of both."""
        held = self.held()
        return "old" if held == self.old else "new" if held == self.new else "some of both"

    def temporary(self) -> list[str]:
        """Return what is left besides files of the user."""
        return [name for name in tree(self.folder) if is_temporary(name)]


def drawn_kill(trial: Trial, index: int, rng: random.Random) -> Fault:
    """Return where a process dies: at a change of the folder, within a write, at a time."""
    if index % 4 == 1:
        return Fault(size=rng.randrange(trial.largest))
    if index % 4 == 3:
        return Fault(seconds=rng.uniform(0, trial.normal.seconds))
    return Fault(write=rng.randint(1, trial.normal.writes))


def kills(trial: Trial, count: int, rng: random.Random) -> Found:
    """Kill a command so many times; run it again after each."""
    found = Found()
    while found.faults < count:
        fault = drawn_kill(trial, found.faults, rng)
        trial.begin()
        ended = run(trial.writer.new, trial.folder, fault)
        if ended.status < 0:
            found.faults += 1
            wrong = list(trial.damage())
            found.left.update([trial.state(), *(["temporary"] if trial.temporary() else [])])
            wrong += list(after(trial)) if trial.temporary() else []
            found.wrong += [f"{fault}: {text}" for text in wrong]
        shutil.rmtree(trial.folder)
    return found


def after(trial: Trial) -> Iterator[str]:
    """Run a command once more and yield what is wrong then."""
    again = run(trial.writer.new, trial.folder)
    if again.status:
        yield f"run again: {again.err}"
    yield from (f"still there: {name}" for name in trial.temporary())
    if trial.held() != trial.new:
        yield "run again, it gives something else"


def full_disks(trial: Trial, count: int, rng: random.Random, *, mounted: bool) -> Found:
    """Give a command so many times a disk with too little room."""
    found = Found()
    mounted = mounted and not trial.writer.repeats  # what finetune removes of an earlier run makes room
    while found.faults < count:
        room = rng.randrange(trial.largest)
        with small_disk(trial, room) if mounted else limited(trial):
            fault = None if mounted else Fault(size=room, is_error=True)
            ended = run(trial.writer.new, trial.folder, fault)
            found.faults += 1
            wrong = list(trial.damage())
            last = (ended.err.splitlines() or [""])[-1]
            if ended.status != 1 or not last.startswith("Error: ") or "Traceback" in ended.err:
                wrong.append(f"it ended with {ended.status} and {ended.err[-500:]}")
            wrong += [f"left: {name}" for name in trial.temporary()]
            found.left.update([trial.state()])
            found.wrong += [f"{room} bytes of room: {text}" for text in wrong]
    return found


@contextmanager
def limited(trial: Trial) -> Iterator[None]:
    """Make the folder of a trial."""
    trial.begin()
    yield
    shutil.rmtree(trial.folder)


@contextmanager
def small_disk(trial: Trial, room: int) -> Iterator[None]:
    """Mount a file system in the place of a trial's folder that has room for the old files and a little more."""
    pages = sum(-(-file.stat().st_size // 4096) for file in tree(trial.place / "old").values()) + room // 4096
    trial.folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={4096 * max(pages, 1)}", "none", trial.folder], check=True)
    try:
        trial.begin()
        yield
    finally:
        subprocess.run(["umount", trial.folder], check=True)
        trial.folder.rmdir()


def parse_arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=4, help="of each command (4)")
    parser.add_argument("--full", type=int, default=1, help="full disks of each command (1)")
    parser.add_argument("--mount", action="store_true", help="a file system for each full disk; for root")
    parser.add_argument("--commands", help="names, with commas between; all by default")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    return parser.parse_args()


def main() -> int:
    """Print a line for each command."""
    options, wrong = parse_arguments(), 0
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "tmp").mkdir()
        tempfile.tempdir = str(base / "tmp")  # there killed processes leave what the system is to remove
        import_all(*(f"rsconvert.{part}" for part in _PARTS), *([] if options.commands else _LIBRARIES))
        prepare(base)
        known = writers(base)
        for chosen in options.commands.split(",") if options.commands else known:
            rng, place = random.Random(f"{options.seed}-{chosen}"), base / chosen
            place.mkdir()
            trial = Trial(known[chosen], place)
            killed, full = (
                kills(trial, options.kills, rng),
                full_disks(trial, options.full, rng, mounted=options.mount),
            )
            print(
                f"{chosen}: {killed.faults} kills, left {words(killed.left)}; {full.faults} full disks, left "
                f"{words(full.left)}; {len(killed.wrong) + len(full.wrong)} wrong",
                flush=True,
            )
            for text in (*killed.wrong, *full.wrong):
                print(f"  {text}", flush=True)
            wrong += len(killed.wrong) + len(full.wrong)
    return 1 if wrong else 0


def words(left: Counter[str]) -> str:
    """Return how often what was left."""
    return ", ".join(f"{name} {number}" for name, number in sorted(left.items())) or "nothing"


if __name__ == "__main__":
    sys.exit(main())
