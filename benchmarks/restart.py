"""Kills finetuning at random changes of its folder and at random times, resumes it, and compares the ends of the runs.

    python benchmarks/restart.py --kills 40
    python benchmarks/restart.py --kills 10 --bits 2/2
    python benchmarks/restart.py --checkpoint start.safetensors --data photos --epochs 4

Without a checkpoint a small network learns from drawn images, with dropout, mixup and a moving average, so that every
part of the state matters. SIGKILL leaves a process no time to write anything. A run is killed and resumed until it
ends, about five times, and then the next one starts. The exit status is 1 if a bit differs from an unbroken run in the
two networks or in ``summary.csv``, apart from times.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from forked import Ended, Fault, command, import_all, run, same_tensors, summary_rows

from rsconvert.demo import write_images

FILES = ("last.safetensors", "best.safetensors")
SETTINGS = ("ema_decay=0.9", "mixup=0.2", "cutmix=1.0", "save_minutes=0.002", "keep_states=2", "probe_epochs=0")
PER_RUN = 5


def main() -> int:
    """Print a line for each kill and one for all."""
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        import_all("rsconvert.cli", "rsconvert.wrapping", "rsconvert.training")
        base = Path(name)
        work = finetuning(options, base)
        (base / "whole").mkdir()
        whole = run(work, base / "whole")
        if whole.status:
            raise SystemExit(whole.err)
        print(f"unbroken: {whole.seconds:.1f} s, {whole.steps} steps, {whole.writes} changes of the folder", flush=True)
        rng, kills, different = random.Random(options.seed), 0, set()
        while kills < options.kills:
            kills += broken_run(work, base / "run", whole, rng, options.kills - kills)
            different |= differing(base / "whole" / "run", base / "run" / "run")
            shutil.rmtree(base / "run")
    print(f"{kills} kills, each followed by --resume: {', '.join(sorted(different)) or 'no file'} differs")
    return 1 if different else 0


def parse_arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--checkpoint", help="a switchable file; a small network if left out")
    parser.add_argument("--data", help="an image folder, needed with a checkpoint")
    parser.add_argument("--bits", help="of weights and activations, such as 2/2; float by default")
    parser.add_argument("--workers", default="0", help="processes that read images (0)")
    parser.add_argument("--kills", type=int, default=10, help="(10)")
    parser.add_argument("--epochs", type=int, default=4, help="(4)")
    parser.add_argument("--batch-size", type=int, default=8, help="(8)")
    parser.add_argument("--images", type=int, default=12, help="drawn for each class (12)")
    parser.add_argument("--seed", type=int, default=0, help="of the kills (0)")
    return parser.parse_args()


def finetuning(options: argparse.Namespace, base: Path) -> Callable[[], object]:
    """Return the command, which writes ``run`` where it runs; make the network and the images that it lacks."""
    checkpoint, data = options.checkpoint, options.data
    if checkpoint is None:
        checkpoint, data = str(base / "start.safetensors"), str(base / "drawings")
        for split, count in (("train", options.images), ("val", 2)):
            write_images(base / "drawings", split, count, np.random.default_rng(count))
        model = ("wrap", "test_efficientnet", "--no-pretrained", "--num-classes", "6", "--resolutions", "64,48,32")
        rates = ("--model-kwargs", "drop_rate=0.2", "--model-kwargs", "drop_path_rate=0.1")
        made = run(command(*model, *rates, "-o", checkpoint), base)
        assert made.status == 0, made.err
    words = ["finetune", checkpoint, "--data", data, "--workers", options.workers, "--epochs", str(options.epochs)]
    words += ["--batch-size", str(options.batch_size), "--device", "cpu", "--json", "--output", "run", "--resume"]
    words += ["--bits", options.bits] if options.bits else []
    return command(*words, *(word for setting in SETTINGS for word in ("--set", setting)))


def broken_run(work: Callable[[], object], place: Path, whole: Ended, rng: random.Random, most: int) -> int:
    """Kill a run at most so many times and resume it, until it has ended; return how many kills there were."""
    place.mkdir()
    for kill in range(most):
        share = rng.uniform(0, 2 / PER_RUN)
        at_change = Fault(write=1 + round(share * whole.writes))
        ended = run(work, place, at_change if kill % 2 == 0 else Fault(seconds=share * whole.seconds))
        if ended.status == 0:
            return kill
        if ended.status > 0:
            raise SystemExit(ended.err)
        states = sorted(file.stem.lstrip("0") for file in (place / "run" / "state").glob("*.safetensors"))
        print(f"killed after {ended.steps} steps and {ended.writes} changes: states {', '.join(states)}", flush=True)
    last = run(work, place)
    if last.status:
        raise SystemExit(last.err)
    return most


def differing(whole: Path, broken: Path) -> set[str]:
    """Return the files of two runs that differ, apart from times."""
    files = {name for name in FILES if not same_tensors(whole / name, broken / name)}
    return files | (set() if summary_rows(whole) == summary_rows(broken) else {"summary.csv"})


if __name__ == "__main__":
    sys.exit(main())
