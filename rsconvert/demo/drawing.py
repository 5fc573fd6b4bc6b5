"""Drawn images whose classes differ in detail: an ellipse of a fine pattern on a smooth background."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["PATTERNS", "draw", "write_images"]

_SIDE = 128
_PERIOD = (6.0, 10.0)  # pixels of the drawing; at half size this nears two pixels

Field = NDArray[np.float64]


def _stripes(u: Field, v: Field) -> Field:
    return np.sin(u)


def _checks(u: Field, v: Field) -> Field:
    return np.sin(u) * np.sin(v)


def _grid(u: Field, v: Field) -> Field:
    return np.maximum(np.sin(u), np.sin(v)) - 0.5


def _waves(u: Field, v: Field) -> Field:
    return np.sin(u + 1.5 * np.sin(v / 2))


def _bricks(u: Field, v: Field) -> Field:
    shifted = u / 2 + np.pi * (np.sin(v / 2) > 0)
    return np.maximum(np.sin(shifted), np.sin(v)) - 0.5


def _rings(u: Field, v: Field) -> Field:
    return np.sin(np.hypot(u, v))


PATTERNS: dict[str, Callable[[Field, Field], Field]] = {
    "bricks": _bricks,
    "checks": _checks,
    "grid": _grid,
    "rings": _rings,
    "stripes": _stripes,
    "waves": _waves,
}


def draw(pattern: str, rng: np.random.Generator) -> Image.Image:
    """Return one 128×128 RGB drawing of a pattern in random place, size, angle, period, contrast and colours."""
    y, x = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float64)
    centre, radii = rng.uniform(0.35, 0.65, 2) * _SIDE, rng.uniform(0.22, 0.42, 2) * _SIDE
    angle, period = rng.uniform(0, np.pi), rng.uniform(*_PERIOD)
    dx, dy = x - centre[0], y - centre[1]
    across, along = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
    inside = (dx / radii[0]) ** 2 + (dy / radii[1]) ** 2 < 1
    texture = PATTERNS[pattern](2 * np.pi * across / period, 2 * np.pi * along / period)
    colours, tint = rng.uniform(60, 195, (2, 3)), rng.uniform(20, 60) * rng.uniform(0.5, 1.0, 3)
    image = np.where(inside[..., None], colours[0] + tint * np.clip(3 * texture, -1, 1)[..., None], colours[1])
    image = image + _clouds(rng)[..., None] + rng.normal(0, 6, image.shape)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def write_images(folder: Path, split: str, per_class: int, rng: np.random.Generator) -> None:
    """Write ``per_class`` drawings of every pattern below ``folder/split/PATTERN``."""
    for pattern in PATTERNS:
        place = folder / split / pattern
        place.mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            draw(pattern, rng).save(place / f"{i:04d}.png", compress_level=1)


def _clouds(rng: np.random.Generator) -> Field:
    """Return smooth brightness noise."""
    coarse = Image.fromarray(rng.normal(0, 30, (5, 5)).astype(np.float32))
    return np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), dtype=np.float64)
