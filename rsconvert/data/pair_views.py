"""An image with its mask → S views of one crop with the mask at the grid of the loss, and whole images to evaluate."""

from collections.abc import Sequence
from random import Random
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from rsconvert.data.decoding import EncodedImage, in_channels
from rsconvert.data.masks import nearest
from rsconvert.data.pairs import Pairs
from rsconvert.data.places import draw_places
from rsconvert.data.samples import Samples
from rsconvert.data.views import (
    Augmentation,
    Size,
    check_choice,
    check_views,
    cut_views,
    draw_crops,
    resized,
    whole,
)
from rsconvert.errors import ConfigError, DataError

__all__ = [
    "Grid",
    "Resize",
    "TrainingPairs",
    "WholeImages",
    "collate_pairs",
    "fitted",
    "training_pair",
    "whole_views",
]

Grid = tuple[int, int]
"""Height and width of the logits on which a loss is computed."""

Resize = Literal["squash", "short-side", "pad"]

_MULTIPLE = 32  # of pixels, by which networks divide their input as a rule


def training_pair(
    image: Tensor | EncodedImage,
    mask: Tensor,
    resolutions: Sequence[int],
    rng: Random,
    augmentation: Augmentation,
    grids: Sequence[Grid],
    channels: int = 3,
) -> tuple[list[Tensor], Tensor]:
    """Return views as ``training_views`` does, and the mask of the same crop at each grid, taken from its own pixels.

    Several masks lie in one vector one after the other; a single one is (H, W).

    Raises:
        DataError: the encoded image is damaged.
        ConfigError: crop or flip differ from view to view, or the image changes its shape.
    """
    if "per-view" in (augmentation.crop, augmentation.flip) or augmentation.rand_augment is not None:
        raise ConfigError(
            "crop or flip is per-view, or rand_augment is set; a mask follows one crop and one flip of all views, and "
            "no other change of shape. Use shared ones and color_jitter."
        )
    crops = draw_crops(image, resolutions, rng, augmentation)
    views = cut_views(image, crops, resolutions, rng, augmentation, channels)
    (top, left, height, width), mirrored = crops[0]
    part = mask[top : top + height, left : left + width]
    part = part.flip(1) if mirrored else part
    masks = [nearest(part, *grid) for grid in grids]
    return views, masks[0] if len(masks) == 1 else torch.cat([m.flatten() for m in masks])


def whole_views(
    image: Tensor, sizes: Sequence[Size], *, resize: str, interpolation: str, fill: Sequence[float]
) -> list[Tensor]:
    """Return the whole image at each size, (C, h, w); in grey if the colour has one channel.

    ``squash`` resizes each side on its own; ``pad`` keeps the shape and fills up to the size, right and below, with
    the colour ``fill`` in [0, 1]; ``short-side`` keeps the shape: its shorter side gets the size, the longer one the
    nearest multiple of 32 pixels, or of the power of two in the size if that is smaller.

    Raises:
        ConfigError: ``resize`` is unknown, or a size is a pair where the image keeps its shape.
    """
    check_views(sizes)
    check_choice("resize", resize, get_args(Resize))
    batch = whole(in_channels(image, len(fill)))
    colour = torch.tensor(fill).mul(255).round().to(torch.uint8).view(-1, 1, 1)
    views = []
    for size in sizes:
        inner = fitted((image.shape[-2], image.shape[-1]), size, resize)
        view = resized(batch, *inner, interpolation)[0]
        outer = (size, size) if isinstance(size, int) else size
        if resize == "pad" and inner != outer:
            canvas = colour.repeat(1, *outer)
            canvas[:, : inner[0], : inner[1]] = view
            view = canvas
        views.append(view)
    return views


def fitted(own: Grid, size: Size, resize: str) -> Grid:
    """Return the height and width that an image of a height and width has in a view."""
    outer = (size, size) if isinstance(size, int) else size
    if resize == "squash":
        return outer
    if resize == "pad":
        scale = min(outer[0] / own[0], outer[1] / own[1])
        return max(1, round(own[0] * scale)), max(1, round(own[1] * scale))
    if not isinstance(size, int):
        raise ConfigError(f"size is {size[0]}x{size[1]} with resize short-side; one number of pixels is needed.")
    step = min(_MULTIPLE, size & -size)
    longer = max(size, round(size * max(own) / min(own) / step) * step)
    return (size, longer) if own[0] <= own[1] else (longer, size)


class TrainingPairs(Dataset[Any]):
    """Key (epoch, batch, index) → S random views (C, r, r) of one crop, and its mask at the grids of the loss.

    Views that are not drawn, and errors, are as of ``TrainingViews``.
    """

    def __init__(
        self,
        samples: Pairs,
        resolutions: Sequence[int],
        grids: Sequence[Grid],
        *,
        seed: int,
        augmentation: Augmentation | None = None,
        drawn: int | None = None,
        channels: int = 3,
    ) -> None:
        self._samples, self._seed, self._resolutions, self._grids = samples, seed, tuple(resolutions), tuple(grids)
        self._drawn = len(self._resolutions) if drawn is None else drawn
        self._augmentation, self._channels = augmentation or Augmentation(), channels
        blank = torch.zeros((3, 8, 8), dtype=torch.uint8)  # on which settings are tried
        self._cut(blank, blank[0], self._resolutions, Random(seed))

    def _cut(
        self, image: Tensor | EncodedImage, mask: Tensor, sides: Sequence[int], rng: Random
    ) -> tuple[list[Tensor], Tensor]:
        return training_pair(image, mask, sides, rng, self._augmentation, self._grids, self._channels)

    def __getitem__(self, key: tuple[int, int, int]) -> Any:
        epoch, batch, index = key
        views = len(self._resolutions)
        places = draw_places(views, self._drawn, seed=self._seed, epoch=epoch, batch=batch)
        sides = [self._resolutions[place] for place in places]
        try:
            image, mask = self._samples.open_pair(index)
            rng = Random(f"{self._seed}-{epoch}-{index}")
            cut, target = self._cut(image, mask, sides, rng)
        except DataError as error:
            return DataError(str(error))  # without its cause, which need not travel between processes
        drawn = dict(zip(places, cut, strict=True))
        not_drawn = torch.empty((self._channels, 0, 0), dtype=torch.uint8)
        return [drawn.get(place, not_drawn) for place in range(views)], target


class WholeImages(Dataset[Any]):
    """Index → the sample's S whole views and its mask, or its target; errors as of ``TrainingPairs``."""

    def __init__(
        self, samples: Samples, sizes: Sequence[Size], *, resize: str, interpolation: str, fill: Sequence[float]
    ) -> None:
        self._samples, self._sizes, self._resize = samples, tuple(sizes), resize
        self._interpolation, self._fill = interpolation, tuple(fill)
        self._cut(torch.zeros((3, 8, 8), dtype=torch.uint8))

    def _cut(self, image: Tensor) -> list[Tensor]:
        return whole_views(image, self._sizes, resize=self._resize, interpolation=self._interpolation, fill=self._fill)

    def __getitem__(self, index: int) -> Any:
        try:
            image, target = self._opened(index)
            return self._cut(image.decode() if isinstance(image, EncodedImage) else image), target
        except DataError as error:
            return DataError(str(error))

    def _opened(self, index: int) -> tuple[EncodedImage | Tensor, Any]:
        return self._samples.open_pair(index) if isinstance(self._samples, Pairs) else self._samples.open(index)


def collate_pairs(samples: list[Any]) -> Any:
    """Return ([views (N, r, r, C), or a list of N where their sizes differ], list of N targets), or the first error."""
    if errors := [sample for sample in samples if isinstance(sample, DataError)]:
        return errors[0]
    groups = zip(*([view.permute(1, 2, 0) for view in views] for views, _ in samples), strict=True)
    return [_stacked(group) for group in groups], [mask for _, mask in samples]


def _stacked(views: Sequence[Tensor]) -> Any:
    alike = len({view.shape for view in views}) == 1
    return default_collate([*views]) if alike else [view.contiguous() for view in views]
