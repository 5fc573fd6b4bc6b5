"""What few bits cost and save: bytes of files, or top-1 without training, with statistics estimated again.

    python benchmarks/quantized.py sizes --model resnet18
    python benchmarks/quantized.py accuracy v1.rs.safetensors --model docs/examples/mobilenetv1.py:build \
        --data photos --class-map map.txt --bits 4/32,2/32

``sizes`` writes a network of five resolutions as one file, and as one file for each, with float weights and with few
bits. ``accuracy`` quantizes the weights of a checkpoint, estimates the BatchNorm statistics of every set again from
training images, and evaluates all on the same validation images; few_photos.py makes a folder of few.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsconvert import SwitchableModel, calibrate, create_model, evaluate, make_switchable, quantize_, save
from rsconvert.checkpoint import load_among, subset
from rsconvert.text import Table

RESOLUTIONS = (224, 192, 160, 128, 96)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("what", choices=("sizes", "accuracy"))
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--model", help="a model's name; for accuracy the file.py:function of the checkpoint")
    parser.add_argument("--bits", default="4/32,2/32")
    parser.add_argument("--data")
    parser.add_argument("--class-map")
    parser.add_argument("--images", type=int, default=300, help="to estimate the statistics on (300)")
    options = parser.parse_args()
    bits = options.bits.split(",")
    table = sizes(options.model or "resnet18", bits) if options.what == "sizes" else accuracy(options, bits)
    print(table.as_text())


def sizes(name: str, bits: list[str]) -> Table:
    rows = []
    for asked in (None, *bits):
        torch.manual_seed(0)
        net = make_switchable(create_model(name), RESOLUTIONS)
        if asked is not None:
            quantize_(net, asked)
        shared, single = bytes_of(net), bytes_of(subset(net, (160,)))
        rows.append([asked or "32/32", f"{shared:,}", f"{single:,}", f"{5 * single:,}", f"{5 * single / shared:.2f}"])
    return Table(["bits", "one file for five", "one for one", "five for one each", "ratio"], rows)


def bytes_of(net: SwitchableModel) -> int:
    with tempfile.TemporaryDirectory() as folder:
        save(net, Path(folder) / "net.safetensors")
        return (Path(folder) / "net.safetensors").stat().st_size


def accuracy(options: argparse.Namespace, bits: list[str]) -> Table:
    rows = []
    for asked in (None, *bits):
        net = load_among(options.checkpoint, options.model)
        if asked is not None:
            quantize_(net, asked)
            calibrate(net, options.data, net.resolutions, images=options.images)
        found = evaluate(net, options.data, class_map=options.class_map)
        rows.append([asked or "32/32", *(f"{one.top1:.1f}" for one in found.resolutions.values())])
    return Table(["bits", *map(str, found.resolutions)], rows)


if __name__ == "__main__":
    main()
