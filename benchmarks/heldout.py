"""Settings of finetune, tried on a part of the training images that is held back.

python benchmarks/heldout.py CHECKPOINT --data DIR [--model FILE.py:FUNCTION] [--held 600] [--set KEY=VALUE]…

Holds back N images, always the same ones, trains on the others and prints top-1 in percent at each resolution after the
last epoch, their mean, and the network as it starts, on the same images. So nothing is chosen on the images of val.
"""

import argparse
import random

import rsconvert
from rsconvert.checkpoint import load_with
from rsconvert.data import open_split
from rsconvert.evaluation import Evaluation
from rsconvert.recipes import build_config
from rsconvert.training import explain_defaults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--data", required=True)
    parser.add_argument("--model")
    parser.add_argument("--held", type=int, default=600, metavar="N")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    config = build_config(settings=dict(pair.split("=", 1) for pair in given.set))
    every = open_split(given.data, "train")
    order = random.Random(0).sample(range(len(every)), len(every))
    held, kept = sorted(order[: given.held]), sorted(order[given.held :])
    net = load_with(given.checkpoint, given.model) if given.model else rsconvert.load(given.checkpoint)
    start = rsconvert.evaluate(net, every.subset(held), class_map=config.class_map, workers=config.workers)
    print(f"{len(kept)} images to train, {len(held)} held back\nas it starts: {row(start)}", flush=True)
    print(explain_defaults(net, config) or "all is set", flush=True)
    rsconvert.finetune(net, (every.subset(kept), every.subset(held)), config=config)
    found = rsconvert.evaluate(net, every.subset(held), class_map=config.class_map, workers=config.workers)
    print(f"{' '.join(given.set) or 'defaults'}: {row(found)}")


def row(found: Evaluation) -> str:
    values = [accuracy.top1 for accuracy in found.resolutions.values()]
    return f"{' '.join(f'{value:.1f}' for value in values)}, mean {sum(values) / len(values):.2f}"


if __name__ == "__main__":
    main()
