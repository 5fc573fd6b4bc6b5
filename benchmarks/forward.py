"""Times net.at(r)(x) and net(x) against the plain model, batch 1, one thread.

    python benchmarks/forward.py
    python benchmarks/forward.py --models resnet18 --rounds 200

The three run alternately in one process on the same input, so that a busy machine slows all; the ratio of the
medians is what counts. 1.00 means that a path costs no extra time. ``net(x) adds`` is the time of choosing the path,
on a model that does next to nothing.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsconvert import create_model, make_switchable
from rsconvert.evaluation import measure_latency


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--models", default="resnet50,mobilenetv2_100", help="timm names")
    parser.add_argument("--rounds", type=int, default=60, help="times each is run (60)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.models.split(","):
        compare(name, options.rounds)
    print(f"net(x) adds {1e3 * dispatch_ms():.1f} µs to net.at(r)(x)")


@torch.inference_mode()
def compare(name: str, rounds: int) -> None:
    model = create_model(name).eval()
    net = make_switchable(model, (224, 192, 160, 128, 96)).eval()
    for resolution in (224, 96):
        x = torch.randn(1, 3, resolution, resolution)
        runs = {"plain": partial(model, x), "path": partial(net.at(resolution), x), "picked": partial(net, x)}
        plain, path, picked = (time.median_ms for time in measure_latency(runs, rounds=rounds).values())
        print(
            f"{name:16s} {resolution:3d} px  plain {plain:7.2f} ms  "
            f"path / plain {path / plain:.3f}  net(x) / plain {picked / plain:.3f}"
        )


@torch.inference_mode()
def dispatch_ms() -> float:
    net, x = make_switchable(nn.Sequential(nn.BatchNorm2d(3)), (32, 16)).eval(), torch.zeros(1, 3, 16, 16)
    found = measure_latency({"path": partial(net.at(16), x), "picked": partial(net, x)}, rounds=3000)
    return found["picked"].median_ms - found["path"].median_ms


if __name__ == "__main__":
    main()
