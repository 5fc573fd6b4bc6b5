"""A dense evaluation against its parts: the forwards, one decoding, the resizes, each timed alone in the same run.

python benchmarks/evaluate.py CHECKPOINT --data DIR [--resolutions 224,208,…] [--images 300] [--rounds 5]

Prints the time of the whole over the sum of its parts, all on one thread of one process, in interleaved rounds.
"""

import argparse
from collections.abc import Callable

import torch

import rsconvert
from rsconvert.data import evaluation_loader, evaluation_views, open_split
from rsconvert.evaluation import NETWORK, Subject, measure_latency, predict

DENSE = "224,208,192,176,160,144,128,112,96"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--data", required=True)
    parser.add_argument("--resolutions", default=DENSE)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes = tuple(int(r) for r in given.resolutions.split(","))
    net = rsconvert.load(given.checkpoint)
    every = open_split(given.data, "val")
    samples = every.subset(range(0, len(every), max(1, len(every) // given.images))[: given.images])
    parts = pieces(net, samples, sizes, given.batch_size)
    whole = {"whole": lambda: predict({NETWORK: net}, samples, sizes, batch_size=given.batch_size, workers=0)}
    found = measure_latency({**whole, **parts}, rounds=given.rounds, warm_up=1)
    seconds = {name: time.median_ms / 1000 for name, time in found.items()}
    total = sum(seconds[name] for name in parts)
    told = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
    print(f"{len(samples)} images at {len(sizes)} resolutions: {told}")
    print(f"whole / (forwards + decoding + resizes): {seconds['whole'] / total:.3f}")


def pieces(net, samples, sizes, batch_size) -> dict[str, Callable[[], object]]:
    """Return the parts of an evaluation, each as a function that does it for all images."""
    subject = Subject(net, sizes)
    options = {"crop_pct": subject.crop_pct, "interpolation": subject.preprocessing.interpolation}
    loader = evaluation_loader(samples, sizes, batch_size=batch_size, workers=0, **options)
    batches = list(loader)
    images = [samples.read(i)[0] for i in range(len(samples))]

    @torch.no_grad()
    def forwards() -> None:
        for views, targets in batches:
            subject.logits(views, targets)

    return {
        "forwards": forwards,
        "decoding": lambda: [samples.read(i) for i in range(len(samples))],
        "resizes": lambda: [evaluation_views(image, sizes, **options) for image in images],
    }


if __name__ == "__main__":
    main()
