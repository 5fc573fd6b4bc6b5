"""Kills a finetuning run at random times, resumes it each time, and compares the end with an uninterrupted run.

    python benchmarks/restart.py
    python benchmarks/restart.py --checkpoint start.safetensors --data photos --kills 20 --epochs 4

Without a checkpoint a small network learns from drawn images, with dropout, mixup and a moving average, so that every
part of the state matters. SIGKILL leaves a process no time to write anything. The exit status is 1 if a bit differs.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsconvert import create_model, make_switchable, save
from rsconvert.demo import write_images

ROOT = Path(__file__).resolve().parents[1]
FILES = ("last.safetensors", "best.safetensors")
SETTINGS = ["ema_decay=0.9", "mixup=0.2", "cutmix=1.0", "save_minutes=0.01", "keep_states=2"]


def main() -> int:
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint, data = prepared(options, folder)
        command = [sys.executable, "-m", "rsconvert", "finetune", checkpoint, "--data", data, "--workers", "1"]
        command += [
            "--epochs",
            str(options.epochs),
            "--batch-size",
            str(options.batch_size),
            "--device",
            "cpu",
            "--json",
        ]
        command += [word for setting in SETTINGS for word in ("--set", setting)]
        first, whole = uninterrupted(command, folder / "whole")
        print(f"uninterrupted: first state after {first:.1f} s, end after {whole:.1f} s", flush=True)
        longest = first + 2 * (whole - first) / options.kills
        kills = killed(command, folder / "run", options.kills, longest, random.Random(options.seed))
        finish(start(command, folder / "run"))
        different = [name for name in FILES if not same(folder / "whole" / name, folder / "run" / name)]
    print(f"{kills} kills, each followed by --resume: {', '.join(different) or 'no file'} differs")
    return 1 if different or kills < options.kills else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--checkpoint", help="a switchable file; a small network if left out")
    parser.add_argument("--data", help="an image folder, needed with a checkpoint")
    parser.add_argument("--kills", type=int, default=20, help="(20)")
    parser.add_argument("--epochs", type=int, default=12, help="(12)")
    parser.add_argument("--batch-size", type=int, default=8, help="(8)")
    parser.add_argument("--images", type=int, default=40, help="drawn for each class (40)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (0)")
    return parser.parse_args()


def prepared(options: argparse.Namespace, folder: Path) -> tuple[str, str]:
    if options.checkpoint is not None:
        return options.checkpoint, options.data
    for split, count in (("train", options.images), ("val", 10)):
        write_images(folder / "drawings", split, count, np.random.default_rng(count))
    model = create_model("test_efficientnet", num_classes=6, model_kwargs={"drop_rate": 0.2, "drop_path_rate": 0.1})
    save(make_switchable(model, (64, 48, 32)), folder / "start.safetensors")
    return str(folder / "start.safetensors"), str(folder / "drawings")


def uninterrupted(command: list[str], run: Path) -> tuple[float, float]:
    """Return the seconds until the first state was there, and until the end."""
    started = time.monotonic()
    process = start(command, run)
    while not any((run / "state").glob("*.safetensors")) and process.poll() is None:
        time.sleep(0.01)
    first = time.monotonic() - started
    finish(process)
    return first, time.monotonic() - started


def killed(command: list[str], run: Path, kills: int, longest: float, rng: random.Random) -> int:
    """Kill the run ``kills`` times, each time after up to ``longest`` seconds; return how often it was still alive.

    If not even the first kill was in time, because the machine got faster, all starts again with half the seconds.
    """
    for kill in range(kills):
        process, seconds = start(command, run), rng.uniform(0, longest)
        time.sleep(seconds)
        if process.poll() is not None:
            finish(process)
            if kill:
                return kill
            shutil.rmtree(run)
            return killed(command, run, kills, longest / 2, rng)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        states = sorted(file.stem.lstrip("0") for file in (run / "state").glob("*.safetensors"))
        partial = len(list(run.rglob(".*.part")))
        told = f"states {', '.join(states)}" if states else "no state"
        print(f"kill {kill + 1} after {seconds:.1f} s: {told}; partial files {partial}", flush=True)
    return kills


def start(command: list[str], run: Path) -> "subprocess.Popen[str]":
    whole = [*command, "--output", str(run), "--resume"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(whole, text=True, cwd=ROOT, start_new_session=True, **pipes)  # type: ignore[call-overload, no-any-return]


def finish(process: "subprocess.Popen[str]") -> None:
    _, shown = process.communicate()
    if process.returncode:
        raise SystemExit(shown)


def same(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


if __name__ == "__main__":
    sys.exit(main())
