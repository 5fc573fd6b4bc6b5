"""Times one photo → S training views: Pillow's way against rsconvert's, on one thread each.

    python benchmarks/views.py
    python benchmarks/views.py --resolutions 224,160,96 --images 64

Pillow's way opens, converts, crops, resizes S times and makes float tensors; rsconvert's ends in uint8 tensors, since
`normalize` runs on the device that trains (it is timed below, on the CPU). Both cut the same crops from the same
synthetic JPEGs, by turns, so that a busy machine slows both; the figures are medians over the rounds.
"""

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsconvert.data import PAPER_PREPROCESSING, decode, normalize, training_views
from rsconvert.data.views import _random_box

Step = Callable[[int], object]


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(1)
    width, height = options.size
    photos = [synthetic_photo(width, height, options.quality, seed) for seed in range(options.images)]
    times = run_by_turns(steps(photos, options.resolutions), options.images, options.rounds)
    kilobytes = sum(map(len, photos)) / len(photos) / 1000
    print(f"{options.images} JPEGs {width}x{height}, {kilobytes:.0f} kB each → {options.resolutions}, ms per image")
    for name, milliseconds in times.items():
        print(f"{name:36s} {milliseconds:7.3f}")
    print(f"{'ratio Pillow / rsconvert':36s} {times['Pillow, whole'] / times['rsconvert, whole']:7.2f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=32, help="number of photos (32)")
    parser.add_argument("--rounds", type=int, default=15, help="times each photo is processed (15)")
    parser.add_argument("--size", type=integers("x"), default=(500, 375), help="width x height of a photo (500x375)")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEGs (90)")
    parser.add_argument(
        "--resolutions", type=integers(","), default=(224, 192, 160, 128, 96), help="224,192,160,128,96"
    )
    return parser.parse_args()


def integers(separator: str) -> Callable[[str], tuple[int, ...]]:
    def parse(text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split(separator)))

    return parse


def synthetic_photo(width: int, height: int, quality: int, seed: int) -> bytes:
    """Return a JPEG of smooth noise at several scales, its amplitude falling with the frequency as in photos."""
    generator = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 128.0)
    for cell in (128, 32, 8, 2, 1):
        for colour in range(3):
            noise = generator.normal(size=(height // cell + 2, width // cell + 2)).astype(np.float32)
            smooth = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
            pixels[..., colour] += 5 * cell**0.5 * np.asarray(smooth)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def steps(photos: list[bytes], resolutions: tuple[int, ...]) -> dict[str, Step]:
    """Return the two pipelines, and their parts on inputs prepared beforehand."""
    pictures = [open_picture(photo) for photo in photos]
    boxes = [crop_box(picture.size, seed) for seed, picture in enumerate(pictures)]
    resized = [pillow_resize(picture, box, resolutions) for picture, box in zip(pictures, boxes, strict=True)]
    images = [decode(photo, "photo") for photo in photos]
    views = [training_views(image, resolutions, Random(seed)) for seed, image in enumerate(images)]
    return {
        "Pillow, whole": lambda i: to_floats(pillow_resize(open_picture(photos[i]), boxes[i], resolutions)),
        "rsconvert, whole": lambda i: training_views(decode(photos[i], "photo"), resolutions, Random(i)),
        "Pillow: decode": lambda i: open_picture(photos[i]),
        "Pillow: crop, resizes": lambda i: pillow_resize(pictures[i], boxes[i], resolutions),
        "Pillow: to float tensors": lambda i: to_floats(resized[i]),
        "rsconvert: decode": lambda i: decode(photos[i], "photo"),
        "rsconvert: crop, resizes, flip": lambda i: training_views(images[i], resolutions, Random(i)),
        "normalize (left to the device)": lambda i: [normalize(view, PAPER_PREPROCESSING) for view in views[i]],
    }


def open_picture(photo: bytes) -> Image.Image:
    return Image.open(io.BytesIO(photo)).convert("RGB")


def crop_box(size: tuple[int, int], seed: int) -> tuple[int, int, int, int]:
    """Return the (left, upper, right, lower) that `training_views` cuts with this seed."""
    width, height = size
    top, left, h, w = _random_box(height, width, (0.08, 1.0), (3 / 4, 4 / 3), Random(seed))
    return left, top, left + w, top + h


def pillow_resize(
    picture: Image.Image, box: tuple[int, int, int, int], resolutions: tuple[int, ...]
) -> list[Image.Image]:
    crop = picture.crop(box)
    return [crop.resize((r, r), Image.Resampling.BILINEAR) for r in resolutions]


def to_floats(views: list[Image.Image]) -> list[Tensor]:
    return [to_tensor(view) for view in views]


def run_by_turns(steps: dict[str, Step], images: int, rounds: int) -> dict[str, float]:
    """Return each step's median time per image, in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            for index in range(images):
                step(index)
            times[name].append((time.perf_counter() - start) / images * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
