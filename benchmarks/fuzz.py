"""Damaged files: each kind that rsconvert opens is changed at random, opened, and run if it was accepted.

    python benchmarks/fuzz.py --files 2000 --seed 0

Every file must be refused in one line, or run. A line for each kind counts both, and what failed, with the slowest file
in seconds of the processor and the most memory that one took. What fails is written to the folder of ``--keep``.
"""

import argparse
import io
import json
import random
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rsconvert
from rsconvert.errors import RSConvertError
from rsconvert.export import export_onnx, export_program, verify_export
from rsconvert.recipes import build_config
from rsconvert.surgery import SwitchableModel
from rsconvert.training.run import RunFolder

Open = Callable[[Path], object]
RESOLUTIONS = (48, 32)
VALUES = (
    -1,
    0,
    1,
    2**31,
    10**12,
    1e308,
    float("nan"),
    None,
    True,
    "",
    "x" * 300,
    "\ud800",
    [],
    {},
    [[]],
    "a.py:b",
    "hf-hub:a/b",
)
PIECES = (b"\x00", b"\xff", b"9" * 20, b"[" * 2000, b'"', b"}", b"\\ud800", b"F16", b"F64", b"I64", b"NaN", b"-1")


def make_network() -> SwitchableModel:
    """Return a network of 5 classes."""
    torch.manual_seed(0)
    return rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=5), RESOLUTIONS).eval()


def write_files(folder: Path, net: SwitchableModel) -> dict[str, tuple[Path, Open]]:
    """Write a sound file of each kind; return it with what opens and runs it."""
    rsconvert.save(net, folder / "net.safetensors")
    export_program(net, 48, folder / "net.pt2")
    export_onnx(net, folder / "net.onnx", 48)
    run = RunFolder(folder / "run")
    facts = {"progress": {"epoch": 0, "saves": 1}, "settings": {"steps_per_epoch": 1}, "scaler": {}}
    run.add_state(1, {"a": torch.zeros(100)}, facts)
    (folder / "names.txt").write_text("cat 0\ndog 1\n", encoding="utf-8")
    (folder / "run.toml").write_text("epochs = 3\nlr = 0.1\nclass_weights = [1, 2, 3, 4, 5]\n", encoding="utf-8")

    def run_network(path: Path) -> None:
        found = rsconvert.load(path)
        for side in found.resolutions:
            found.at(side)(torch.zeros(1, 3, side, side))

    def run_state(path: Path) -> None:
        opened = RunFolder(path.parent.parent, resume=True)
        opened.newest_state()

    state = next((folder / "run" / "state").iterdir())
    return {
        "checkpoint": (folder / "net.safetensors", run_network),
        "inspected": (folder / "net.safetensors", lambda path: json.dumps(rsconvert.checkpoint.describe(path))),
        "state": (state, run_state),
        "program": (folder / "net.pt2", lambda path: verify_export(path, net)),
        "onnx": (folder / "net.onnx", lambda path: verify_export(path, net)),
        "class map": (folder / "names.txt", lambda path: rsconvert.data.read_class_map(path, ("cat", "dog"))),
        "settings": (folder / "run.toml", build_config),
    }


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes of a file with one to three changes, most of them near its beginning."""
    for _ in range(rng.randint(1, 3)):
        place = min(rng.randrange(len(data) + 1), rng.randrange(len(data) + 1) if rng.random() < 0.3 else 8000)
        piece = rng.choice([*PIECES, bytes([rng.randrange(256)]), rng.randbytes(8)])
        kind = rng.randrange(5)
        if kind == 0:
            data = data[:place]
        elif kind == 1:
            data = data[:place] + piece + data[place:]
        elif kind == 2:
            data = data[:place] + data[place + rng.randint(1, 50) :]
        else:
            data = data[:place] + piece + data[place + len(piece) :]
        data = data or b"\x00"
    return data


def with_other_fields(data: bytes, rng: random.Random) -> bytes:
    """Return a switchable file whose metadata or header is sound JSON with other values."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["rsconvert"])
    if rng.random() < 0.3:
        entry = header[rng.choice([name for name in header if name != "__metadata__"])]
        entry[rng.choice(list(entry))] = rng.choice([*VALUES, "F16", "BF16", "I64", [2**40], [0, 4]])
    for _ in range(rng.randint(1, 2)):
        facts[rng.choice(list(facts))] = rng.choice([*VALUES, [10**9], [48, 31], {"depths": [10**9]}, "resnet50"])
    header["__metadata__"]["rsconvert"] = json.dumps(facts)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def with_other_records(data: bytes, rng: random.Random) -> bytes:
    """Return the archive of a program with other values in its JSON, whose checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    chosen = rng.choice([name for name in records if name.endswith(("model.json", "weights_config.json"))])
    held = json.loads(records[chosen])
    for _ in range(rng.randint(1, 3)):
        place: Any = held
        while isinstance(place, (dict, list)) and place:
            inside, key = place, rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
            place = inside[key]
        inside[key] = rng.choice([*VALUES, "torch.os.system", "aten", 3, {"as_int": 2**40}])
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, json.dumps(held) if name == chosen else content)
    return written.getvalue()


def reset_peak() -> int:
    """Forget the peak of this process's memory; return what it holds in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(name: str) -> int:
    """Return a line of Linux's status of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def outcome(path: Path, run: Open) -> str:
    """Return ``accepted``, ``refused``, or what failed."""
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            run(path)
    except RSConvertError as error:
        return "refused" if "\n" not in str(error) else f"several lines: {error}"
    except Exception as error:  # what no file may cause
        return f"{type(error).__name__}: {error}"
    return "accepted"


@dataclass
class Found:
    """How often the files of a kind were accepted, refused or failed; the slowest in seconds, the largest in bytes."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    largest: int = 0

    def failed(self) -> dict[str, int]:
        """Return what no file may cause, and how often it came."""
        return {name: count for name, count in self.counts.items() if name not in ("accepted", "refused")}


CHANGES = {"checkpoint": with_other_fields, "inspected": with_other_fields, "program": with_other_records}


def fuzz(folder: Path, count: int, seed: int, keep: Path | None = None) -> Iterator[tuple[str, Found]]:
    """Yield each kind of file with what happened to so many damaged ones."""
    for kind, (path, run) in write_files(folder, make_network()).items():
        rng, sound, found = random.Random(f"{seed}-{kind}"), path.read_bytes(), Found()
        assert outcome(path, run) == "accepted", kind
        for index in range(count):
            change = CHANGES.get(kind, damaged) if rng.random() < 0.6 else damaged
            path.write_bytes(change(sound, rng))
            before, start = reset_peak(), time.process_time()
            end = outcome(path, run)
            found.slowest = max(found.slowest, time.process_time() - start)
            found.largest = max(found.largest, memory("VmHWM") - before)
            found.counts[end] += 1
            if keep is not None and end not in ("accepted", "refused"):
                (keep / f"{kind}-{index}{path.suffix}").write_bytes(path.read_bytes())
        path.write_bytes(sound)
        yield kind, found


def main() -> None:
    """Print what happened to the files of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="an existing folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for kind, found in fuzz(Path(folder), arguments.files, arguments.seed, arguments.keep):
            print(
                f"{kind}: {found.counts['refused']} refused, {found.counts['accepted']} accepted, "
                f"{sum(found.failed().values())} failed, slowest {found.slowest:.2f} s of the processor, "
                f"at most {found.largest / 2**20:.0f} MiB more",
                flush=True,
            )
            for name, number in found.failed().items():
                print(f"  {number} × {name[:300]!r}", flush=True)


if __name__ == "__main__":
    main()
