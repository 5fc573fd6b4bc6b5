"""Times net.at(r)(x) and net(x) against the plain model, batch 1, one thread.

    python benchmarks/forward.py
    python benchmarks/forward.py --models resnet18 --rounds 200

The three run alternately in one process on the same input, so that a busy machine slows all; the ratio of the
medians is what counts. 1.00 means that a path costs no extra time. ``net(x) adds`` is the time of choosing the path,
on a model that does next to nothing.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsconvert import create_model, make_switchable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--models", default="resnet50,mobilenetv2_100", help="timm names")
    parser.add_argument("--rounds", type=int, default=60, help="times each is run (60)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.models.split(","):
        compare(name, options.rounds)
    print(f"net(x) adds {1e6 * dispatch_seconds():.1f} µs to net.at(r)(x)")


@torch.inference_mode()
def compare(name: str, rounds: int) -> None:
    model = create_model(name).eval()
    net = make_switchable(model, (224, 192, 160, 128, 96)).eval()
    for resolution in (224, 96):
        x = torch.randn(1, 3, resolution, resolution)
        plain, path, picked = by_turns([model, net.at(resolution), net], x, rounds)
        print(
            f"{name:16s} {resolution:3d} px  plain {1e3 * plain:7.2f} ms  "
            f"path / plain {path / plain:.3f}  net(x) / plain {picked / plain:.3f}"
        )


def by_turns(models: list[Callable[[Tensor], Tensor]], x: Tensor, rounds: int) -> list[float]:
    """Return the median seconds of each, after a warm-up; the order turns round from round to round."""
    times: list[list[float]] = [[] for _ in models]
    for i in range(rounds + 3):
        for j in [(i + k) % len(models) for k in range(len(models))]:
            start = time.perf_counter()
            models[j](x)
            times[j].append(time.perf_counter() - start)
    return [statistics.median(column[3:]) for column in times]


@torch.inference_mode()
def dispatch_seconds() -> float:
    net = make_switchable(nn.Sequential(nn.BatchNorm2d(3)), (32, 16)).eval()
    path, picked = by_turns([net.at(16), net], torch.zeros(1, 3, 16, 16), 3000)
    return picked - path


if __name__ == "__main__":
    main()
