"""One image → S views, each resized from the pixels of the image itself.

    bytes → decode → training_views | evaluation_views → a batch → normalize

Images and views are uint8 RGB of shape (3, H, W). Floats appear in `normalize` alone, on the device that runs the
network.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rsconvert.data.augmentation import augment
from rsconvert.data.decoding import EncodedImage
from rsconvert.errors import ConfigError, ResolutionError

__all__ = [
    "PAPER_PREPROCESSING",
    "Crop",
    "Flip",
    "Preprocessing",
    "Size",
    "evaluation_views",
    "normalize",
    "training_views",
]

Crop = Literal["shared", "per-view"]
Size = int | tuple[int, int]  # a square's side, or height and width
Flip = Literal["shared", "per-view", "off"]

_INTERPOLATIONS = ("bilinear", "bicubic")
_CROP_TRIES = 10
_REDUCTIONS = (8, 4, 2)

_T = TypeVar("_T")
_Box = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a network expects of its images; the defaults are the paper's.

    ``mean`` and ``std`` are per colour, of pixels in [0, 1]. ``crop_pct`` is the side of the evaluation crop divided by
    the short side of the resized image: one number, or one per resolution.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    crop_pct: float | tuple[float, ...] = 0.875

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise ConfigError(f"std is {self.std}; each number divides a colour and must be above 0. Correct it.")
        _check_interpolation(self.interpolation)
        if isinstance(self.crop_pct, Sequence):
            object.__setattr__(self, "crop_pct", tuple(self.crop_pct))
        _check_crop_pct(self.crop_pct if isinstance(self.crop_pct, tuple) else (self.crop_pct,))


def training_views(
    image: Tensor | EncodedImage,
    resolutions: Sequence[int],
    rng: Random,
    *,
    crop_area: tuple[float, float] = (0.08, 1.0),
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3),
    crop: Crop = "shared",
    flip: Flip = "shared",
    interpolation: str = "bilinear",
    color_jitter: float | None = None,
    rand_augment: str | None = None,
) -> list[Tensor]:
    """Return one random view (3, r, r) per resolution, all cut out of ``image`` alike (the paper's Sec. 3).

    A crop's share of the image is uniform in ``crop_area``, its width over height log-uniform in ``crop_aspect``; a
    view is mirrored with probability 1/2. "shared" draws once for all views, "per-view" once for each. Crops are drawn
    before flips, so that one seed gives the same crops whatever ``flip`` is. An encoded image is decoded at a fraction
    of its size where its crops are far larger than the views. ``color_jitter`` and ``rand_augment`` are drawn last and
    once for all views, see `augment`.

    Raises:
        DataError: the encoded image is damaged.
        ResolutionError: ``resolutions`` is empty or holds something other than positive integers.
        ConfigError: a setting is unknown or out of range.
    """
    _check_resolutions(resolutions)
    _check_augmentation(crop_area, crop_aspect, crop, flip, interpolation)
    height, width = image.shape[-2:]
    views = len(resolutions)
    boxes = _draw(lambda: _random_box(height, width, crop_area, crop_aspect, rng), views, shared=crop == "shared")
    flips = [False] * views if flip == "off" else _draw(lambda: rng.random() < 0.5, views, shared=flip == "shared")
    if isinstance(image, EncodedImage):
        reduction = _reduction(boxes, resolutions)
        image = image.decode(reduction)
        boxes = [_reduced(box, (height, width), image.shape[-2:]) for box in boxes]
    crops = list(zip(boxes, flips, strict=True))
    pixels = {crop: _pixels(image, *crop) for crop in dict.fromkeys(crops)}
    if color_jitter is not None or rand_augment is not None:
        change = partial(augment, seed=rng.getrandbits(63), color_jitter=color_jitter, rand_augment=rand_augment)
        pixels = {crop: _batch(change(cut[0].permute(1, 2, 0))) for crop, cut in pixels.items()}
    return [_shrink(pixels[crop], r, interpolation) for crop, r in zip(crops, resolutions, strict=True)]


def evaluation_views(
    image: Tensor, resolutions: Sequence[Size], *, crop_pct: float | Sequence[float], interpolation: str
) -> list[Tensor]:
    """Return one view (3, r, r) per resolution: short side to int(r / crop_pct), then the central r × r.

    A pair (height, width) gives a view (3, height, width): the image is resized to cover both sides / crop_pct.

    The image comes decoded in full: a measured accuracy should not hang on how it was reduced.

    Raises:
        ResolutionError: ``resolutions`` is empty or holds something other than positive integers.
        ConfigError: ``crop_pct`` or ``interpolation`` is unusable, or ``crop_pct`` has another length.
    """
    _check_resolutions(resolutions)
    _check_interpolation(interpolation)
    shares = list(crop_pct) if isinstance(crop_pct, Sequence) else [crop_pct] * len(resolutions)
    _check_crop_pct(shares)
    if len(shares) != len(resolutions):
        raise ConfigError(
            f"crop_pct has {len(shares)} numbers for {len(resolutions)} resolutions; give one, or one per resolution."
        )
    batch = _pixels(image, (0, 0, *image.shape[-2:]), False)
    return [
        _central_view(batch, (size, size) if isinstance(size, int) else size, share, interpolation)
        for size, share in zip(resolutions, shares, strict=True)
    ]


def normalize(
    batch: Tensor,
    preprocessing: Preprocessing,
    *,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.preserve_format,
) -> Tensor:
    """Return (x / 255 - mean) / std of uint8 images (…, 3, H, W), computed in float32 on their own device."""
    mean = torch.tensor(preprocessing.mean, device=batch.device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=batch.device).view(3, 1, 1)
    return batch.mul(1 / (255 * std)).sub_(mean / std).to(dtype=dtype, memory_format=memory_format)


def _random_box(height: int, width: int, area: tuple[float, float], aspect: tuple[float, float], rng: Random) -> _Box:
    for _ in range(_CROP_TRIES):
        pixels = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        h, w = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < h <= height and 0 < w <= width:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    return _central_box(height, width, aspect)


def _central_box(height: int, width: int, aspect: tuple[float, float]) -> _Box:
    """Return the largest centred box whose aspect ratio is allowed."""
    h = min(height, max(1, round(width / aspect[0])))
    w = min(width, max(1, round(height * aspect[1])))
    return (height - h) // 2, (width - w) // 2, h, w


def _draw(draw: Callable[[], _T], count: int, *, shared: bool) -> list[_T]:
    return [draw()] * count if shared else [draw() for _ in range(count)]


def _reduction(boxes: Sequence[_Box], resolutions: Sequence[int]) -> int:
    """Return the largest reduction of a JPEG that leaves each crop twice as large as its view.

    Of sharp photos at 2000×1500 the views then differ by 0.8 of 255 from those of full size, at most by 16; without
    that margin by 3.3, at most by 72. The crop's edges move by up to a quarter of a view's pixel.
    """
    room = min(min(h, w) / r for (_, _, h, w), r in zip(boxes, resolutions, strict=True)) / 2
    return next((reduction for reduction in _REDUCTIONS if reduction <= room), 1)


def _reduced(box: _Box, size: Sequence[int], reduced: Sequence[int]) -> _Box:
    """Return the box of the same part of the image at another size."""
    top, bottom = (round(y * reduced[0] / size[0]) for y in (box[0], box[0] + box[2]))
    left, right = (round(x * reduced[1] / size[1]) for x in (box[1], box[1] + box[3]))
    return top, left, bottom - top, right - left


def _pixels(image: Tensor, box: _Box, mirrored: bool) -> Tensor:
    """Return the box as a dense batch of one: torch's fast uint8 resize takes nothing else, and the copy is small."""
    top, left, height, width = box
    pixels = image[:, top : top + height, left : left + width].permute(1, 2, 0)
    return _batch(pixels.flip(1) if mirrored else pixels.contiguous())


def _batch(pixels: Tensor) -> Tensor:
    # Adding the batch axis before moving the colours gives the strides by which torch recognizes channels_last.
    return pixels.unsqueeze(0).permute(0, 3, 1, 2)


def _shrink(batch: Tensor, resolution: int, interpolation: str) -> Tensor:
    # Columns first: torch sums whole rows faster than neighbours in a row, and so leaves fewer rows to the slower pass.
    _, _, height, width = batch.shape
    if height > resolution:
        batch = _resize(batch, resolution, width, interpolation)
    return _resize(batch, resolution, resolution, interpolation)[0]


def _resize(batch: Tensor, height: int, width: int, interpolation: str) -> Tensor:
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
    return _resize(batch, h, w, interpolation)[0, :, top : top + size[0], left : left + size[1]]


def _three_numbers(name: str, values: object) -> tuple[float, ...]:
    numbers = tuple(values) if isinstance(values, Sequence) and not isinstance(values, str) else ()
    if len(numbers) != 3 or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers):
        raise ConfigError(f"{name} is {values!r}; 3 finite numbers are needed, one per colour. Correct it.")
    return tuple(float(x) for x in numbers)


def _check_interpolation(interpolation: str) -> None:
    if interpolation not in _INTERPOLATIONS:
        raise ConfigError(f"interpolation is {interpolation!r}; choose one of {', '.join(_INTERPOLATIONS)}.")


def _check_crop_pct(shares: Sequence[float]) -> None:
    if not shares or not all(isinstance(share, (int, float)) and 0 < share <= 1 for share in shares):
        raise ConfigError(f"crop_pct is {', '.join(map(repr, shares)) or 'empty'}; choose numbers above 0, at most 1.")


def _check_resolutions(resolutions: Sequence[Size]) -> None:
    sides = [side for size in resolutions for side in (size if isinstance(size, tuple) else (size,))]
    if not sides or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ResolutionError(f"resolutions is {resolutions!r}; give at least one positive integer, in pixels.")


def _check_augmentation(
    area: tuple[float, float], aspect: tuple[float, float], crop: Crop, flip: Flip, interpolation: str
) -> None:
    if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
        raise ConfigError(f"crop_area is {area}; give a smallest and a largest share of the image, in (0, 1].")
    if len(aspect) != 2 or not 0 < aspect[0] <= aspect[1] < math.inf:
        raise ConfigError(f"crop_aspect is {aspect}; give a smallest and a largest width over height, above 0.")
    for name, value, known in (("crop", crop, get_args(Crop)), ("flip", flip, get_args(Flip))):
        if value not in known:
            raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(known)}.")
    _check_interpolation(interpolation)


PAPER_PREPROCESSING = Preprocessing()
