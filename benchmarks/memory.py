"""Measures the memory of a training step: all views at once, view by view, and one plain step at the native resolution.

    python benchmarks/memory.py
    python benchmarks/memory.py --model mobilenetv2_100 --batch 32

Each kind runs in a process of its own. Its figure is the largest resident size during three steps, less the resident
size of the same process when network, optimizer and images are there and no step has run.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from step import batch, plain_steps, switchable_step

from rsconvert.training import keep_freed_memory

KINDS = ("plain", "whole", "by view")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="resnet18", help="a timm name")
    parser.add_argument("--batch", type=int, default=16, help="images per step (16)")
    parser.add_argument("--amp", choices=["off", "bf16"], default="off")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind is not None:
        print(measured(options))
        return
    print(f"{options.model}, batch {options.batch}, {options.amp}, CPU, {torch.get_num_threads()} threads")
    sizes = {kind: run(kind) for kind in KINDS}
    for kind, words in zip(KINDS, ("one plain step at 224", "S views at once", "S views one by one"), strict=True):
        print(f"{words:24s}{sizes[kind] / 2**20:8.0f} MiB  ratio {sizes[kind] / sizes['plain']:.2f}")


def run(kind: str) -> int:
    """Return what a fresh process of this kind measured, in bytes."""
    command = [sys.executable, __file__, *sys.argv[1:], "--kind", kind]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measured(options: argparse.Namespace) -> int:
    if options.kind == "whole":  # as the finetune command does
        keep_freed_memory()
    device = torch.device("cpu")
    settings = {
        **vars(options),
        "format": "channels_last",
        "compile": "off",
        "views": "all",
        "low_memory": options.kind == "by view",
    }
    views, target = batch(options.batch, device)
    if options.kind == "plain":
        step, views = plain_steps(argparse.Namespace(**settings), device), views[:1]
    else:
        step = switchable_step(argparse.Namespace(**settings), device)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    for _ in range(3):
        step(views, target)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


if __name__ == "__main__":
    main()
