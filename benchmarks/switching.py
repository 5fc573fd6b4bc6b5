"""Times a switch of resolution against another network in the place of this one.

    python benchmarks/switching.py
    python benchmarks/switching.py --model mobilenetv2_100 --rounds 5

``net.at`` at a trained and at an untrained resolution run alternately; then creating a model and loading a file of
weights into it; then ``net.at`` again, each right after a model was created, which leaves nothing of the network in the
processor's cache; then ``net.at`` and copy.deepcopy of the plain model by turns. The file is in the system's memory
after its first reading, so a cold disk would take longer.
"""

import argparse
import copy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsconvert import create_model, make_switchable
from rsconvert.evaluation import machine_key, measure_latency, measure_switching


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="resnet50", help="a timm name")
    parser.add_argument("--rounds", type=int, default=30, help="times each is run (30)")
    options = parser.parse_args()
    create = partial(create_model, options.model)
    # The untrained resolution is halfway between the two largest: 176.
    net = make_switchable(create(), (192, 160, 128, 96)).eval()
    found = measure_switching(net, create, rounds=options.rounds)
    other = (found.create_ms or 0) + (found.load_ms or 0)
    print(f"{options.model}; {machine_key(torch.device('cpu'))}; medians of {options.rounds} rounds")
    print(f"net.at({found.trained}), trained         {1e3 * found.trained_ms:10.1f} µs")
    print(f"net.at({found.untrained}), interpolated   {found.untrained_ms:10.2f} ms")
    print(
        f"    after creating a model  {_after(create, lambda: net.at(found.untrained or 0), options.rounds):10.2f} ms"
    )
    print(f"create a model              {found.create_ms:10.1f} ms")
    print(f"load a file into it         {found.load_ms:10.1f} ms")
    print(f"another model / trained     {other / found.trained_ms:10.0f}")
    print(f"another model / interpolated{other / (found.untrained_ms or 1):10.0f}")
    plain = net.extract(net.native)
    runs = {"copy": lambda: copy.deepcopy(plain), "at": lambda: net.at(found.untrained or 0)}
    turns = measure_latency(runs, rounds=options.rounds)
    print(f"copy.deepcopy / interpolated{turns['copy'].median_ms / turns['at'].median_ms:10.1f}")


def _after(create: Callable[[], object], run: Callable[[], object], rounds: int) -> float:
    """Return the median time of a run in ms, each time after creating a model."""
    return measure_latency({"create": create, "run": run}, rounds=rounds)["run"].median_ms


if __name__ == "__main__":
    main()
