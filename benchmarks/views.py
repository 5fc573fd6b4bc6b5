"""Times one photo → S training views: Pillow's way against rsconvert's, on one thread each.

    python benchmarks/views.py
    python benchmarks/views.py --photos imagenette/train --images 300 --size 2000x1500 --rounds 3

Pillow's way opens, converts, crops, resizes S times and makes float tensors; rsconvert's ends in uint8 tensors, since
`normalize` runs on the device that trains (it is timed below, on the CPU). Both cut the same crops from the same JPEGs,
alternately; the figures are means over the photos of the shortest time in all rounds, which a busy machine changes
least.
"""

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsconvert.data import PAPER_PREPROCESSING, Augmentation, EncodedImage, normalize, training_views
from rsconvert.data.views import _random_box

Step = Callable[[int], object]

_AREA, _PAPERS_AREA = (0.35, 1.0), (0.08, 1.0)
_ENDINGS = (".jpg", ".jpeg", ".png")


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(1)
    photos = photos_from(options) if options.photos else synthetic_photos(options)
    times = run_by_turns(steps(photos, options.resolutions), len(photos), options.rounds)
    kilobytes, size = sum(map(len, photos)) / len(photos) / 1000, "x".join(map(str, options.size))
    print(f"{len(photos)} JPEGs {size}, {kilobytes:.0f} kB each → {options.resolutions}, ms per image")
    for name, milliseconds in times.items():
        print(f"{name:44s} {milliseconds:7.3f}")
    for area in (_AREA, _PAPERS_AREA):
        whole = times[f"rsconvert, whole, {named(area)}"]
        print(f"{named(area)}: {1000 / whole:.0f} images/s, ", end="")
        print(f"{times['torchvision: decode'] / whole:.2f} of decoding alone, ", end="")
        print(f"{times[f'Pillow, whole, {named(area)}'] / whole:.2f} times Pillow")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, help="folder of photos to enlarge (synthetic ones)")
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


def photos_from(options: argparse.Namespace) -> list[bytes]:
    """Return photos spread evenly over the sorted files below the folder, enlarged to the size and encoded again."""
    files = sorted(file for file in options.photos.rglob("*") if file.suffix.lower() in _ENDINGS)
    chosen = files[:: max(1, len(files) // options.images)][: options.images]
    return [encode(open_picture(file.read_bytes()).resize(options.size), options.quality) for file in chosen]


def synthetic_photos(options: argparse.Namespace) -> list[bytes]:
    return [encode(synthetic_photo(*options.size, seed), options.quality) for seed in range(options.images)]


def encode(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def synthetic_photo(width: int, height: int, seed: int) -> Image.Image:
    """Return smooth noise at several scales, its amplitude falling with the frequency as in photos."""
    generator = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 128.0)
    for cell in (128, 32, 8, 2, 1):
        for colour in range(3):
            noise = generator.normal(size=(height // cell + 2, width // cell + 2)).astype(np.float32)
            smooth = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
            pixels[..., colour] += 5 * cell**0.5 * np.asarray(smooth)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def steps(photos: list[bytes], resolutions: tuple[int, ...]) -> dict[str, Step]:
    """Return the two pipelines, and their parts on inputs prepared beforehand."""
    pictures, images = [open_picture(photo) for photo in photos], [torchvision_decode(photo) for photo in photos]
    boxes = [crop_box(picture.size, seed, _AREA) for seed, picture in enumerate(pictures)]
    resized = [pillow_resize(picture, box, resolutions) for picture, box in zip(pictures, boxes, strict=True)]
    views = [training_views(image, resolutions, Random(seed)) for seed, image in enumerate(images)]
    wholes: dict[str, Step] = {}
    for area in (_AREA, _PAPERS_AREA):
        wholes[f"Pillow, whole, {named(area)}"] = partial(pillow_whole, photos, resolutions, area)
        wholes[f"rsconvert, whole, {named(area)}"] = partial(rsconvert_whole, photos, resolutions, area)
    return wholes | {
        "Pillow: decode": lambda i: open_picture(photos[i]),
        "Pillow: crop, resizes": lambda i: pillow_resize(pictures[i], boxes[i], resolutions),
        "Pillow: to float tensors": lambda i: to_floats(resized[i]),
        "torchvision: decode": lambda i: torchvision_decode(photos[i]),
        "Pillow: decode at a half, to a tensor": lambda i: EncodedImage(photos[i], "photo").decode(2),
        "Pillow: decode at a quarter, to a tensor": lambda i: EncodedImage(photos[i], "photo").decode(4),
        "rsconvert: crop, flip, resizes of full size": lambda i: training_views(
            images[i], resolutions, Random(i), Augmentation(crop_area=_AREA)
        ),
        "normalize (left to the device)": lambda i: [normalize(view, PAPER_PREPROCESSING) for view in views[i]],
    }


def named(area: tuple[float, float]) -> str:
    return f"crops {area[0]:g}-{area[1]:g}"


def pillow_whole(photos: list[bytes], resolutions: tuple[int, ...], area: tuple[float, float], i: int) -> list[Tensor]:
    picture = open_picture(photos[i])
    return to_floats(pillow_resize(picture, crop_box(picture.size, i, area), resolutions))


def rsconvert_whole(
    photos: list[bytes], resolutions: tuple[int, ...], area: tuple[float, float], i: int
) -> list[Tensor]:
    return training_views(EncodedImage(photos[i], "photo"), resolutions, Random(i), Augmentation(crop_area=area))


def torchvision_decode(photo: bytes) -> Tensor:
    """Return the photo at full size, by the faster decoder there is."""
    image: Tensor = torch.ops.image.decode_jpeg(torch.frombuffer(bytearray(photo), dtype=torch.uint8), 3)
    return image


def open_picture(photo: bytes) -> Image.Image:
    return Image.open(io.BytesIO(photo)).convert("RGB")


def crop_box(size: tuple[int, int], seed: int, area: tuple[float, float]) -> tuple[int, int, int, int]:
    """Return the (left, upper, right, lower) that `training_views` cuts with this seed."""
    width, height = size
    top, left, h, w = _random_box(height, width, area, (3 / 4, 4 / 3), Random(seed))
    return left, top, left + w, top + h


def pillow_resize(
    picture: Image.Image, box: tuple[int, int, int, int], resolutions: tuple[int, ...]
) -> list[Image.Image]:
    crop = picture.crop(box)
    return [crop.resize((r, r), Image.Resampling.BILINEAR) for r in resolutions]


def to_floats(views: list[Image.Image]) -> list[Tensor]:
    return [to_tensor(view) for view in views]


def run_by_turns(steps: dict[str, Step], images: int, rounds: int) -> dict[str, float]:
    """Return the mean over the images of each step's shortest time, in milliseconds."""
    best = {name: [float("inf")] * images for name in steps}
    for _ in range(rounds):
        for index in range(images):
            for name, step in steps.items():
                start = time.perf_counter()
                step(index)
                best[name][index] = min(best[name][index], time.perf_counter() - start)
    return {name: 1000 * statistics.fmean(times) for name, times in best.items()}


if __name__ == "__main__":
    main()
