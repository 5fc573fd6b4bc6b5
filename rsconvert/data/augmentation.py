"""A crop whose colours and shape are changed at random, by timm's RandAugment and torchvision's ColorJitter."""

import math
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torchvision.transforms import ColorJitter

from rsconvert.errors import ConfigError

__all__ = ["augment"]

# timm passes over a section that it does not know if it holds no digit.
_SECTIONS = r"m\d+|n[1-9]|p(0(\.\d+)?|1)|mstd\d+(\.\d+)?|mmax[1-9]\d*|inc[01]|t(weights|3aw?)"


def augment(pixels: Tensor, seed: int, *, color_jitter: float | None, rand_augment: str | None) -> Tensor:
    """Return a crop, uint8 (h, w, 3), after RandAugment and then changes of brightness, contrast and saturation.

    One ``seed`` gives the same operations with the same magnitudes, whatever the crop. The global generators that both
    libraries draw from are left as they were.

    Raises:
        ConfigError: a setting is none that the libraries know.
    """
    picture = Image.fromarray(pixels.numpy())
    changes = _changes(color_jitter, rand_augment)
    with _seeded(seed):
        for change in changes:
            picture = change(picture)
    return torch.from_numpy(np.array(picture))


@cache
def _changes(color_jitter: float | None, rand_augment: str | None) -> list[Callable[[Image.Image], Image.Image]]:
    changes: list[Callable[[Image.Image], Image.Image]] = []
    if rand_augment is not None:
        if not re.fullmatch(rf"rand(-({_SECTIONS}))*", rand_augment):
            raise ConfigError(
                f"rand_augment is {rand_augment!r}; rand and sections of timm's RandAugment are accepted (m9, n2, "
                "p0.5, mstd0.5, mmax10, inc1, tweights), such as rand-m9-mstd0.5-inc1. Correct it."
            )
        changes.append(_rand_augment(rand_augment))
    if color_jitter is not None:
        if not 0 < color_jitter < math.inf:
            raise ConfigError(f"color_jitter is {color_jitter}; a number above 0 is accepted, or None. Change it.")
        changes.append(ColorJitter(color_jitter, color_jitter, color_jitter))
    return changes


def _rand_augment(config: str) -> Callable[[Image.Image], Image.Image]:
    transform: Any = rand_augment_transform(config, {})
    for operation in transform.ops:
        if operation.name.startswith("Posterize"):
            # At one end of its magnitudes timm asks for 0 bits, which Pillow refuses.
            operation.level_fn = partial(_at_least_one_bit, operation.level_fn)
    return cast(Callable[[Image.Image], Image.Image], transform)


def _at_least_one_bit(bits: Callable[..., tuple[int]], *magnitude: Any) -> tuple[int]:
    return (max(1, *bits(*magnitude)),)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch's CPU, and give the caller's back."""
    pythons, numpys, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)
        torch.set_rng_state(torchs)
