"""One image → S views, each resized from the pixels of the image itself.

    bytes → decode → training_views | evaluation_views → a batch → normalize

Images are uint8 RGB of shape (3, H, W), views too, or grey of shape (1, H, W) for networks of one channel. Floats
appear in `normalize` alone, on the device that runs the network.
"""

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torchvision.transforms import ColorJitter

from rsconvert.data.decoding import EncodedImage, as_pillow, in_channels
from rsconvert.errors import ConfigError, ResolutionError

__all__ = [
    "PAPER_PREPROCESSING",
    "Augmentation",
    "Box",
    "Preprocessing",
    "Size",
    "augment",
    "check_choice",
    "check_views",
    "crop_shares",
    "cut_views",
    "draw_crops",
    "evaluation_views",
    "normalize",
    "resized",
    "resolution_of",
    "training_views",
    "whole",
]

Size = int | tuple[int, int]  # a square's side, or height and width
Crop = Literal["shared", "per-view"]
Flip = Literal["shared", "per-view", "off"]

_INTERPOLATIONS = ("bilinear", "bicubic")
# timm passes over a section that it does not know if it holds no digit.
_SECTIONS = r"m\d+|n[1-9]|p(0(\.\d+)?|1)|mstd\d+(\.\d+)?|mmax[1-9]\d*|inc[01]|t(weights|3aw?)"

Box = tuple[int, int, int, int]  # top, left, height, width
# An image is resized to resolution / crop_pct; pixels in [0, 255] have a std of 1/255 in these units.
_LEAST_CROP, _LEAST_STD, _LARGEST = 0.05, 1e-4, 1e4


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a network expects of its images; the defaults are the paper's.

    ``mean`` and ``std`` are per channel of the image, three colours or one of grey, of pixels in [0, 1]. ``crop_pct``
    is the side of the evaluation crop divided by the short side of the resized image: one number, or one per
    resolution.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    crop_pct: float | tuple[float, ...] = 0.875

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if len(self.mean) != len(self.std):
            raise ConfigError(
                f"mean has {len(self.mean)} numbers, std {len(self.std)}; both need one per channel of the image."
            )
        if not (min(self.std) >= _LEAST_STD and max(map(abs, (*self.mean, *self.std))) <= _LARGEST):
            raise ConfigError(
                f"mean is {self.mean}, std is {self.std}; numbers up to {_LARGEST:g} are accepted, std from "
                f"{_LEAST_STD:g}, for pixels in [0, 1]."
            )
        check_choice("interpolation", self.interpolation, _INTERPOLATIONS)
        if isinstance(self.crop_pct, Sequence):
            object.__setattr__(self, "crop_pct", tuple(self.crop_pct))
        _check_crop_pct(self.crop_pct if isinstance(self.crop_pct, tuple) else (self.crop_pct,))

    @property
    def channels(self) -> int:
        """Those of the images: 3 of colours, 1 of grey; a photo has no other number."""
        return len(self.mean)

    def for_channels(self, channels: int) -> "Preprocessing":
        """Return it for images of another number of channels: each has the averages of mean and std, as timm takes."""
        if channels == self.channels:
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return replace(self, mean=(mean,) * channels, std=(std,) * channels)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training views are cut and changed; the defaults are the paper's (Sec. 3).

    A crop's share of the image is uniform in ``crop_area``, its width over height log-uniform in ``crop_aspect``; a
    view is mirrored with probability 1/2. "shared" draws once for all views of an image, "per-view" once for each.
    ``color_jitter`` and ``rand_augment``: see `augment`.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    crop: Crop = "shared"
    flip: Flip = "shared"
    interpolation: str = "bilinear"
    color_jitter: float | None = None
    rand_augment: str | None = None

    def __post_init__(self) -> None:
        area, aspect = self.crop_area, self.crop_aspect
        if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
            raise ConfigError(f"crop_area is {area}; give a smallest and a largest share of the image, in (0, 1].")
        if len(aspect) != 2 or not 0 < aspect[0] <= aspect[1] < math.inf:
            raise ConfigError(f"crop_aspect is {aspect}; give a smallest and a largest width over height, above 0.")
        check_choice("crop", self.crop, get_args(Crop))
        check_choice("flip", self.flip, get_args(Flip))
        check_choice("interpolation", self.interpolation, _INTERPOLATIONS)
        _changes(self.color_jitter, self.rand_augment)


def training_views(
    image: Tensor | EncodedImage,
    resolutions: Sequence[int],
    rng: Random,
    augmentation: Augmentation | None = None,
    channels: int = 3,
) -> list[Tensor]:
    """Return one random view (C, r, r) per resolution, all cut out of ``image``; by default as the paper does.

    Crops are drawn before flips, so that one seed gives the same crops whatever ``flip`` is. An encoded image is
    decoded at a fraction of its size where its crops are far larger than the views. Changes of colour and shape are
    drawn last and once for all views.

    Args:
        channels: C, 3 or 1: in grey.
    Raises:
        DataError: the encoded image is damaged; a photo has no such number of channels.
        ResolutionError: ``resolutions`` is empty or holds something other than positive integers.
    """
    how = augmentation or Augmentation()
    return cut_views(image, draw_crops(image, resolutions, rng, how), resolutions, rng, how, channels)


def draw_crops(
    image: Tensor | EncodedImage, resolutions: Sequence[int], rng: Random, how: Augmentation
) -> list[tuple[Box, bool]]:
    """Return the box of each view, and whether it is mirrored."""
    check_views(resolutions)
    height, width = image.shape[-2:]
    views = len(resolutions)
    draws = {"shared": 1, "per-view": views, "off": 0}
    boxes = [_random_box(height, width, how.crop_area, how.crop_aspect, rng) for _ in range(draws[how.crop])]
    flips = [rng.random() < 0.5 for _ in range(draws[how.flip])] or [False]
    boxes, flips = boxes * (views // len(boxes)), flips * (views // len(flips))
    return list(zip(boxes, flips, strict=True))


def cut_views(
    image: Tensor | EncodedImage,
    crops: Sequence[tuple[Box, bool]],
    resolutions: Sequence[int],
    rng: Random,
    how: Augmentation,
    channels: int = 3,
) -> list[Tensor]:
    """Return the view (C, r, r) of each crop; ``rng`` decides the changes of colour and shape."""
    boxes, flips = [box for box, _ in crops], [flip for _, flip in crops]
    height, width = image.shape[-2:]
    if isinstance(image, EncodedImage):
        image = image.decode(_reduction(boxes, resolutions))
        boxes = [_reduced(box, (height, width), image.shape[-2:]) for box in boxes]
    image = in_channels(image, channels)
    crops = list(zip(boxes, flips, strict=True))  # in the pixels that were decoded
    pixels = {crop: _pixels(image, *crop) for crop in dict.fromkeys(crops)}
    if how.color_jitter is not None or how.rand_augment is not None:
        seed = rng.getrandbits(63)
        pixels = {crop: _batch(augment(cut[0].permute(1, 2, 0), seed, how)) for crop, cut in pixels.items()}
    return [_shrink(pixels[crop], r, how.interpolation) for crop, r in zip(crops, resolutions, strict=True)]


def evaluation_views(
    image: Tensor,
    resolutions: Sequence[Size],
    *,
    crop_pct: float | Sequence[float],
    interpolation: str,
    channels: int = 3,
) -> list[Tensor]:
    """Return one view (C, r, r) per resolution: short side to int(r / crop_pct), then the central r × r.

    A pair (height, width) gives a view (C, height, width): the image is resized to cover both sides / crop_pct. The
    image is decoded in full: a measured accuracy should not depend on how it was reduced.

    Args:
        channels: C, 3 or 1: in grey.
    Raises:
        DataError: a photo has no such number of channels.
        ResolutionError: ``resolutions`` is empty or holds something other than positive integers.
        ConfigError: ``crop_pct`` or ``interpolation`` is unusable, or ``crop_pct`` has another length.
    """
    check_views(resolutions)
    check_choice("interpolation", interpolation, _INTERPOLATIONS)
    shares = list(crop_pct) if isinstance(crop_pct, Sequence) else [crop_pct] * len(resolutions)
    _check_crop_pct(shares)
    if len(shares) != len(resolutions):
        raise ConfigError(
            f"crop_pct has {len(shares)} numbers for {len(resolutions)} resolutions; give one, or one per resolution."
        )
    batch = whole(in_channels(image, channels))
    return [
        _central_view(batch, (size, size) if isinstance(size, int) else size, share, interpolation)
        for size, share in zip(resolutions, shares, strict=True)
    ]


def crop_shares(preprocessing: Preprocessing, trained: Sequence[int], sizes: Sequence[Size]) -> tuple[float, ...]:
    """Return crop_pct for each size: linear between two trained ones, beyond the ends that of the nearest.

    Raises:
        ConfigError: ``crop_pct`` has another length than the trained resolutions.
    """
    shares = preprocessing.crop_pct
    if not isinstance(shares, tuple):
        return (shares,) * len(sizes)
    if len(shares) != len(trained):
        raise ConfigError(
            f"crop_pct has {len(shares)} numbers; {len(trained)} are needed, one per trained resolution or one for all."
        )
    return tuple(np.interp([*map(resolution_of, sizes)], trained[::-1], shares[::-1]).tolist())


def resolution_of(size: Size) -> int:
    """Return the resolution whose path runs a size: round(√(H·W))."""
    return size if isinstance(size, int) else round(math.sqrt(size[0] * size[1]))


def normalize(
    batch: Tensor,
    preprocessing: Preprocessing,
    *,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.preserve_format,
) -> Tensor:
    """Return (x / 255 - mean) / std of uint8 images (…, C, H, W), computed in float32 on their own device."""
    mean = torch.tensor(preprocessing.mean, device=batch.device).view(-1, 1, 1)
    std = torch.tensor(preprocessing.std, device=batch.device).view(-1, 1, 1)
    return batch.mul(1 / (255 * std)).sub_(mean / std).to(dtype=dtype, memory_format=memory_format)


def augment(pixels: Tensor, seed: int, augmentation: Augmentation) -> Tensor:
    """Return a crop, uint8 (h, w, C), after timm's RandAugment and then torchvision's ColorJitter.

    ``color_jitter`` is the strength of the changes of brightness, contrast and saturation. One ``seed`` gives the same
    operations with the same magnitudes, whatever the crop. The global generators that both libraries draw from are left
    as they were.
    """
    picture = as_pillow(pixels.permute(2, 0, 1)).convert("RGB")  # timm fills up with colours alone
    with _seeded(seed):
        for change in _changes(augmentation.color_jitter, augmentation.rand_augment):
            picture = change(picture)
    return in_channels(torch.from_numpy(np.array(picture)).permute(2, 0, 1), pixels.shape[2]).permute(1, 2, 0)


def _random_box(height: int, width: int, area: tuple[float, float], aspect: tuple[float, float], rng: Random) -> Box:
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        h, w = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < h <= height and 0 < w <= width:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    # None fits: the largest centred box whose aspect ratio is allowed.
    h = min(height, max(1, round(width / aspect[0])))
    w = min(width, max(1, round(height * aspect[1])))
    return (height - h) // 2, (width - w) // 2, h, w


def _reduction(boxes: Sequence[Box], resolutions: Sequence[int]) -> int:
    """Return the largest reduction of a JPEG that leaves each crop twice as large as its view.

    Of sharp photos at 2000×1500 the views then differ by 0.8 of 255 from those of full size, at most by 16; without
    that margin by 3.3, at most by 72. The crop's edges move by up to a quarter of a view's pixel.
    """
    room = min(min(h, w) / r for (_, _, h, w), r in zip(boxes, resolutions, strict=True)) / 2
    return next((reduction for reduction in (8, 4, 2) if reduction <= room), 1)


def _reduced(box: Box, size: Sequence[int], reduced: Sequence[int]) -> Box:
    """Return the box of the same part of the image at another size."""
    top, bottom = (round(y * reduced[0] / size[0]) for y in (box[0], box[0] + box[2]))
    left, right = (round(x * reduced[1] / size[1]) for x in (box[1], box[1] + box[3]))
    return top, left, bottom - top, right - left


def _pixels(image: Tensor, box: Box, mirrored: bool) -> Tensor:
    """Return the box as a dense batch of one: torch's fast uint8 resize takes nothing else, and the copy is small."""
    top, left, height, width = box
    pixels = image[:, top : top + height, left : left + width].permute(1, 2, 0)
    return _batch(pixels.flip(1) if mirrored else pixels.contiguous())


def whole(image: Tensor) -> Tensor:
    """Return an image as a dense batch of one, which torch resizes fast."""
    return _pixels(image, (0, 0, *image.shape[-2:]), False)


def _batch(pixels: Tensor) -> Tensor:
    # Adding the batch axis before moving the colours gives the strides by which torch recognizes channels_last.
    return pixels.unsqueeze(0).permute(0, 3, 1, 2)


def _shrink(batch: Tensor, resolution: int, interpolation: str) -> Tensor:
    # Columns first: torch sums whole rows faster than neighbours in a row, and so leaves fewer rows to the slower pass.
    _, _, height, width = batch.shape
    if height > resolution:
        batch = resized(batch, resolution, width, interpolation)
    return resized(batch, resolution, resolution, interpolation)[0]


def resized(batch: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    """Return a batch of images at another size, antialiased."""
    return F.interpolate(batch, (height, width), mode=interpolation, antialias=True)


def _central_view(batch: Tensor, size: tuple[int, int], share: float, interpolation: str) -> Tensor:
    own = batch.shape[-2:]
    wanted = [int(side / share) for side in size]
    scales = [side / length for side, length in zip(wanted, own, strict=True)]
    # The side that is scaled most gets its length to the pixel.
    h, w = (
        side if scale == max(scales) else int(length * max(scales))
        for side, scale, length in zip(wanted, scales, own, strict=True)
    )
    top, left = round((h - size[0]) / 2), round((w - size[1]) / 2)
    return resized(batch, h, w, interpolation)[0, :, top : top + size[0], left : left + size[1]]


@cache
def _changes(color_jitter: float | None, rand_augment: str | None) -> list[Callable[[Image.Image], Image.Image]]:
    changes: list[Callable[[Image.Image], Image.Image]] = []
    if rand_augment is not None:
        if not re.fullmatch(rf"rand(-({_SECTIONS}))*", rand_augment):
            raise ConfigError(
                f"rand_augment is {rand_augment!r}; rand and sections of timm's RandAugment are accepted (m9, n2, "
                "p0.5, mstd0.5, mmax10, inc1, tweights), such as rand-m9-mstd0.5-inc1."
            )
        changes.append(_rand_augment(rand_augment))
    if color_jitter is not None:
        if not 0 < color_jitter < math.inf:
            raise ConfigError(f"color_jitter is {color_jitter}; a number above 0 is accepted, or None.")
        changes.append(ColorJitter(color_jitter, color_jitter, color_jitter))
    return changes


def _rand_augment(config: str) -> Callable[[Image.Image], Image.Image]:
    transform: Any = rand_augment_transform(config, {})
    for operation in transform.ops:
        if operation.name.startswith("Posterize"):
            # At one end of its magnitudes timm asks for 0 bits, which Pillow refuses.
            operation.level_fn = lambda *magnitude, bits=operation.level_fn: (max(1, *bits(*magnitude)),)
    return cast(Callable[[Image.Image], Image.Image], transform)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch's CPU, and give the caller's back."""
    pythons, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(pythons)
            np.random.set_state(numpys)


def _numbers(name: str, values: object) -> tuple[float, ...]:
    numbers = tuple(values) if isinstance(values, Sequence) and not isinstance(values, str) else ()
    if not numbers or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers):
        raise ConfigError(f"{name} is {values!r}; finite numbers are needed, one per channel of the image.")
    return tuple(float(x) for x in numbers)


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Raise a ConfigError unless a value is among the known ones."""
    if value not in known:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(known)}.")


def _check_crop_pct(shares: Sequence[float]) -> None:
    if not shares or not all(isinstance(share, (int, float)) and _LEAST_CROP <= share <= 1 for share in shares):
        text = ", ".join(map(repr, shares)) or "empty"
        raise ConfigError(f"crop_pct is {text}; choose numbers from {_LEAST_CROP} to 1.")


def check_views(resolutions: Sequence[Size]) -> None:
    """Raise a ResolutionError unless there are sizes, all of positive whole numbers."""
    sides = [side for size in resolutions for side in (size if isinstance(size, tuple) else (size,))]
    if not sides or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ResolutionError(f"resolutions is {resolutions!r}; give at least one positive integer, in pixels.")


PAPER_PREPROCESSING = Preprocessing()
