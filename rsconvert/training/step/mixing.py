"""Mixup and cutmix over the S views of a batch, all mixed alike."""

from collections.abc import Sequence
from random import Random

import torch
from timm.data.mixup import mixup_target
from torch import Tensor

from rsconvert.errors import ConfigError

__all__ = ["mix"]

_SWITCH = 0.5
_Box = tuple[int, int, int, int]


def mix(
    views: Sequence[Tensor], target: Tensor, classes: int, *, mixup: float, cutmix: float, rng: Random
) -> tuple[list[Tensor], Tensor]:
    """Mix image i with image N - 1 - i, as timm's ``Mixup`` does by batch, by the same draw in every view.

    λ ~ Beta(a, a), with a the strength of the mixture drawn; with both strengths above 0 each has half of the batches.
    ``mixup`` is λ·x_i + (1 - λ)·x_j. ``cutmix`` gives x_i a box of x_j: it is drawn on the largest view, where it has
    about 1 - λ of the area, λ becomes the share that is left there, and in other views it is the box scaled and
    rounded to whole pixels, so that one λ stands for all. The middle image of an odd batch keeps itself.

    Args:
        views: S floating tensors (N, C, H, W), left unchanged; their memory formats are kept.
        target: class indices, (N,), below ``classes``.
        mixup: a of mixup, 0 for none; ``cutmix`` likewise.
        rng: decides all.
    Returns:
        The mixed views, and probabilities (N, classes) in float32.
    Raises:
        ConfigError: both strengths are 0.
    """
    if not mixup and not cutmix:
        raise ConfigError("mixup and cutmix are 0; a number above 0 for one of them is needed to mix. Choose one.")
    cut = rng.random() < _SWITCH if mixup and cutmix else bool(cutmix)
    strength = cutmix if cut else mixup
    lam = rng.betavariate(strength, strength)
    if cut:
        size = max((view.shape[-2:] for view in views), key=lambda shape: shape[0] * shape[1])
        box, lam = _random_box(size[0], size[1], lam, rng)
        mixed = [_cut(view, _scaled(box, size, view.shape[-2:])) for view in views]
    else:
        mixed = [torch.lerp(view.flip(0), view, lam) for view in views]
    return mixed, mixup_target(target, classes, lam, smoothing=0.0)


def _random_box(height: int, width: int, lam: float, rng: Random) -> tuple[_Box, float]:
    """Return (top, bottom, left, right) around a uniform centre, clipped to the image, and the share outside."""
    side = (1 - lam) ** 0.5
    top, bottom = _random_interval(height, int(height * side), rng)
    left, right = _random_interval(width, int(width * side), rng)
    return (top, bottom, left, right), 1 - (bottom - top) * (right - left) / (height * width)


def _random_interval(length: int, cut: int, rng: Random) -> tuple[int, int]:
    centre = rng.randrange(length)
    return max(0, centre - cut // 2), min(length, centre + (cut + 1) // 2)


def _scaled(box: _Box, size: Sequence[int], new: Sequence[int]) -> _Box:
    top, bottom, left, right = box
    (height, width), (h, w) = size, new
    return round(top * h / height), round(bottom * h / height), round(left * w / width), round(right * w / width)


def _cut(view: Tensor, box: _Box) -> Tensor:
    rows, columns = slice(*box[:2]), slice(*box[2:])
    mixed = view.clone()
    mixed[..., rows, columns] = view[..., rows, columns].flip(0)
    return mixed
