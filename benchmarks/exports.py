"""Verifies the one ONNX file for all sizes, of eight networks: differences, classes on photos, size, latency.

    python benchmarks/exports.py --data photos
    python benchmarks/exports.py --models resnet18 --resolutions 224,208,96 --rounds 10

For each network, whose sets differ at random (--calibrated: their statistics fit, as those of a trained network do):
the largest relative difference from the network over all resolutions at batch 1 and 5 and on real photos; the
predictions that agree; the file's bytes against torch's export with BatchNorm kept plus four more sets; the latency
against torch's dynamic export in ONNX Runtime, one thread, batch 1: the largest ratio at the trained resolutions, at
those midway, which have a branch too, and at all others.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from onnx_speed import by_turns, network, plain_export

from rsconvert import calibrate
from rsconvert.export import export_onnx, open_onnx, verify_export
from rsconvert.surgery import with_middles

MODELS = (
    "resnet18,resnet50,mobilenetv3_large_100,efficientnet_b0,regnety_004,densenet121,repvgg_a0,torchvision/mobilenet_v2"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--models", default=MODELS, help="names")
    parser.add_argument("--resolutions", default="224,216,208,192,176,160,144,128,112,104,96")
    parser.add_argument("--data", help="folder of photos")
    parser.add_argument("--images", type=int, default=200, help="how many of them (200)")
    parser.add_argument("--rounds", type=int, default=20, help="times each is run (20)")
    parser.add_argument("--calibrated", action="store_true", help="BN statistics of each set estimated on the photos")
    parser.add_argument("--compact", action="store_true", help="one body for all sizes")
    options = parser.parse_args()
    if options.calibrated and not options.data:
        parser.error("--calibrated needs --data")
    torch.set_num_threads(1)
    heads = "".join(f"{kind:>9}" for kind in ("trained", "midway", "others"))
    print(f"{'network':26s}{'difference':>11}{'same class':>14}{'bytes / limit':>15}{heads}")
    for name in options.models.split(","):
        row(name, options)


def row(name: str, options: argparse.Namespace) -> None:
    sides = [int(side) for side in options.resolutions.split(",")]
    net = network(name)
    if options.calibrated:
        calibrate(net, options.data, net.resolutions, images=100, workers=0)
    with tempfile.TemporaryDirectory() as folder:
        file, plain, kept = (Path(folder, f"{kind}.onnx") for kind in ("switching", "plain", "kept"))
        export_onnx(net, file, compact=options.compact)
        plain_export(net.extract(net.native), plain)
        plain_export(net.extract(net.native), kept, optimize=False)
        result = verify_export(file, net, sides, data=options.data, images=options.images)
        sets = sum(t.nbytes for _, bn in net.switchable_bns() for t in bn.floating(0).values())
        limit = kept.stat().st_size + (len(net.resolutions) - 1) * sets
        ratios = {side: ratio(file, plain, side, options.rounds) for side in sides}
        size = file.stat().st_size
    clear, agreeing = (sum(getattr(r, key) for r in result.sizes.values()) for key in ("clear", "agreeing"))
    midway = set(with_middles(net.resolutions)) - set(net.resolutions)
    others = set(sides) - set(with_middles(net.resolutions))
    worst = [
        max((ratios[s] for s in ratios.keys() & set(kind)), default=0.0) for kind in (net.resolutions, midway, others)
    ]
    same, slowest = f"{agreeing} of {clear}", "".join(f"{number:>9.3f}" for number in worst)
    print(f"{name:26s}{result.difference:>11.1e}{same:>14}{size / limit:>15.4f}{slowest}", flush=True)


def ratio(file: Path, plain: Path, side: int, rounds: int) -> float:
    x = torch.randn(1, 3, side, side)
    runs = [open_onnx(path).run for path in (plain, file)]
    ordinary, switching = by_turns([partial(run, x) for run in runs], rounds)
    return switching / ordinary


if __name__ == "__main__":
    main()
