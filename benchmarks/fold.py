"""What folding does to each model: BatchNorms folded and kept, the largest difference, the time of a forward.

    python benchmarks/fold.py
    python benchmarks/fold.py --models efficientnet_b0 --resolutions 224,96 --rounds 60

Every BatchNorm gets other values first: on a fresh network a mistake would be invisible. Batch 1, one thread; the
two run alternately in one process, the ratio of the medians, folded / plain, is what counts.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsconvert import create_model, make_switchable
from rsconvert.evaluation import measure_latency
from rsconvert.surgery import fill_zeros, fold_batchnorm, scrambled, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--models", default="efficientnet_b0,densenet121,repvgg_a0,mobilenetv2_100")
    parser.add_argument("--resolutions", default="224,192,160,128,96")
    parser.add_argument("--rounds", type=int, default=30, help="times each is run (30); 0 leaves the times out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.models.split(","):
        compare(name, tuple(map(int, options.resolutions.split(","))), options.rounds)


def compare(name: str, resolutions: tuple[int, ...], rounds: int) -> None:
    torch.manual_seed(0)
    net = make_switchable(create_model(name), resolutions).eval()
    for resolution in resolutions:
        path = net.at(resolution)
        write(path, {**scrambled(path, resolution), **fill_zeros(path)})
    for resolution in resolutions:
        folded, report = fold_batchnorm(net.at(resolution), resolution)
        line = f"{name:18s} {resolution:3d} px  folded {len(report.folded):3d}  kept {len(report.kept):3d}"
        line += f"  largest difference {report.difference:.1e}"
        if rounds:
            x = torch.randn(1, 3, resolution, resolution)
            runs = {"plain": partial(net.at(resolution), x), "folded": partial(folded, x)}
            with torch.inference_mode():
                plain, fast = (time.median_ms for time in measure_latency(runs, rounds=rounds).values())
            line += f"  plain {plain:7.2f} ms  folded / plain {fast / plain:.3f}"
        print(line, flush=True)
    print_kept(report.kept)


def print_kept(kept: Mapping[str, str]) -> None:
    """Print how many BatchNorms stay for each reason, with the first of them."""
    first: dict[str, str] = {}
    for name, reason in kept.items():
        first.setdefault(_general(reason), f"{name}: {reason}")
    for reason, count in Counter(map(_general, kept.values())).items():
        print(f"    kept {count:3d} such as {first[reason]}")


def _general(reason: str) -> str:
    """Leave the layers' names out."""
    return " ".join(word for word in reason.split() if "." not in word)


if __name__ == "__main__":
    main()
