"""Times ONNX files in ONNX Runtime, batch 1, one thread: what switching costs, and what a plain folded file gains.

    python benchmarks/onnx_speed.py
    python benchmarks/onnx_speed.py --models resnet18,resnet50 --rounds 50
    python benchmarks/onnx_speed.py --models torchvision/mobilenet_v2 --resolutions 224,96 --static
    python benchmarks/onnx_speed.py --models resnet18 --resolutions 224,160,96 --int8

Without --static: the file for all sizes (branches, and --compact) against torch's own export of the source with
dynamic sizes. With it: the plain file of each resolution against the path in PyTorch. With --int8: int8 against the
plain file in float32, with ranges of noise, which cost what those of photos cost. All run alternately on the same
input, so that a busy machine slows all equally; the ratio of the medians is what counts.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsconvert import create_model, make_switchable
from rsconvert.evaluation import measure_latency
from rsconvert.export import export_onnx, open_onnx, quantize
from rsconvert.surgery import SwitchableModel, fill_zeros, scrambled, with_middles, write

TRAINED = (224, 192, 160, 128, 96)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--models", default="resnet18,torchvision/mobilenet_v2", help="names")
    parser.add_argument("--resolutions", default="224,216,208,192,176,160,144,128,112,104,96")
    parser.add_argument("--rounds", type=int, default=40, help="times each is run (40)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--static", action="store_true", help="plain folded files against PyTorch")
    form.add_argument("--int8", action="store_true", help="int8 against plain folded files in float32")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sides = [int(side) for side in options.resolutions.split(",")]
    for name in options.models.split(","):
        net = network(name)
        with tempfile.TemporaryDirectory() as folder:
            compare = compare_static if options.static else compare_int8 if options.int8 else compare_switching
            compare(name, net, sides, options.rounds, Path(folder))


def network(name: str) -> SwitchableModel:
    """Return a network whose sets all differ."""
    torch.manual_seed(0)
    net = make_switchable(create_model(name), TRAINED).eval()
    write(net.at(TRAINED[0]), fill_zeros(net.at(TRAINED[0])))
    for side in TRAINED:
        write(net.at(side), scrambled(net.at(side), side))
    return net


def plain_export(model: nn.Module, file: Path, *, optimize: bool = True) -> None:
    """Write torch's own export of an ordinary model, with dynamic sizes; BatchNorm is kept without ``optimize``."""
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (torch.randn(2, 3, 224, 192),),
            dynamo=True,
            verbose=False,
            dynamic_shapes=(sizes,),
            optimize=optimize,
        )
    assert program is not None
    program.save(str(file), external_data=False)


@torch.inference_mode()
def compare_switching(name: str, net: SwitchableModel, sides: Sequence[int], rounds: int, folder: Path) -> None:
    with torch.inference_mode(False):
        plain_export(net.extract(net.native), folder / "plain.onnx")
        export_onnx(net, folder / "branches.onnx")
        export_onnx(net, folder / "compact.onnx", compact=True)
    files = [open_onnx(folder / f"{kind}.onnx").run for kind in ("plain", "branches", "compact")]
    for side in sides:
        x = torch.randn(1, 3, side, side)
        plain, branches, compact = by_turns([partial(run, x) for run in files], rounds)
        note = "" if side in net.resolutions else "  midway" if side in with_middles(TRAINED) else "  no branch"
        print(
            f"{name:24s} {side:3d} px  plain {plain:7.2f} ms  switching / plain {branches / plain:.3f}  "
            f"compact / plain {compact / plain:.3f}{note}",
            flush=True,
        )


@torch.inference_mode()
def compare_static(name: str, net: SwitchableModel, sides: Sequence[int], rounds: int, folder: Path) -> None:
    for side in sides:
        with torch.inference_mode(False):
            export_onnx(net, folder / f"{side}.onnx", side)
        x, path, run = torch.randn(1, 3, side, side), net.at(side), open_onnx(folder / f"{side}.onnx").run
        eager, static = by_turns([partial(path, x), partial(run, x)], rounds)
        print(
            f"{name:24s} {side:3d} px  PyTorch {eager:7.2f} ms  static ONNX / PyTorch {static / eager:.3f}",
            flush=True,
        )


def compare_int8(name: str, net: SwitchableModel, sides: Sequence[int], rounds: int, folder: Path) -> None:
    quantize(net, noise(folder / "photos"), workers=0)
    for kind, compact in (("switching", False), ("compact", True)):
        export_onnx(net, folder / f"{kind}.onnx", precision="int8", compact=compact, branches=sides)
    switching = [open_onnx(folder / f"{kind}.onnx").run for kind in ("switching", "compact")]
    for side in sides:
        export_onnx(net, folder / f"{side}.onnx", side)
        export_onnx(net, folder / f"{side}.int8.onnx", side, precision="int8")
        x = torch.randn(1, 3, side, side)
        files = [open_onnx(folder / f"{side}{kind}.onnx").run for kind in ("", ".int8")]
        plain, *others = by_turns([partial(run, x) for run in (*files, *switching)], rounds)
        ratios = zip(("int8", "int8 switching", "int8 compact"), others, strict=True)
        cells = "  ".join(f"{kind} / plain {time / plain:.3f}" for kind, time in ratios)
        print(f"{name:24s} {side:3d} px  plain {plain:7.2f} ms  {cells}", flush=True)


def noise(folder: Path) -> str:
    """Write eight photos of noise, and return their folder."""
    folder.mkdir()
    for seed in range(8):
        pixels = torch.randint(256, (256, 256, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{seed}.png")
    return str(folder)


def by_turns(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median milliseconds of each."""
    return [time.median_ms for time in measure_latency(dict(enumerate(calls)), rounds=rounds).values()]


if __name__ == "__main__":
    main()
