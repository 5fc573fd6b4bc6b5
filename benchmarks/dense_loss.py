"""Time the dense loss on both grids, and a pair of the loader against its decoding alone.

    python benchmarks/dense_loss.py

Processor time of one thread, so that other work on the machine counts little. Views of 352, 224 and 96 pixels, two
images, 40 classes, logits at a quarter of the input; a photo of 640×480 with its mask.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rsconvert.data import Augmentation, EncodedImage, MaskReading, open_pairs
from rsconvert.data.pair_views import training_pair
from rsconvert.training.dense_loss import dense_mred_loss

SIZES, CLASSES, IMAGES, ROUNDS = (352, 224, 96), 40, 2, 7


def median_ms(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        run()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


def loss_times() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(IMAGES, CLASSES, r // 4, r // 4, generator=generator).requires_grad_() for r in SIZES]
    alpha = torch.ones(len(SIZES), requires_grad=True)

    def mask(side: int) -> Tensor:
        return torch.randint(CLASSES, (IMAGES, side, side), generator=generator)

    for name, targets in (("largest", [mask(SIZES[0])]), ("native", [mask(r // 4) for r in SIZES])):

        def step(targets: list[Tensor] = targets) -> None:
            torch.autograd.backward(dense_mred_loss(logits, targets, alpha, ignore_index=255).total)

        print(f"loss_grid={name}: {median_ms(step):.1f} ms forward and backward")


def loader_times() -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for part in ("train", "trainannot"):
            Path(folder, part).mkdir()
        coarse = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((640, 480)).save(Path(folder, "train", "a.jpg"), quality=90)
        Image.fromarray(rng.integers(0, CLASSES, (480, 640), dtype=np.uint8)).save(Path(folder, "trainannot", "a.png"))
        pairs = open_pairs(folder, "train", MaskReading(classes=CLASSES))

        def decode() -> Tensor:
            image, _ = pairs.open_pair(0)
            assert isinstance(image, EncodedImage)
            return image.decode()

        def cut() -> object:
            image, mask = pairs.open_pair(0)
            return training_pair(image, mask, SIZES, Random(0), Augmentation(), [(SIZES[0], SIZES[0])])

        alone, whole = median_ms(decode), median_ms(cut)
        each = (whole - alone) / len(SIZES)
        print(
            f"a pair: {alone:.1f} ms decoding, {whole:.1f} ms with {len(SIZES)} views and the mask, {each:.1f} a view"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    loss_times()
    loader_times()
