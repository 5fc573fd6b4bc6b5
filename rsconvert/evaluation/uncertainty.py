"""How certain a measured accuracy is, and how well a network knows how often it is right."""

import math

import torch
from torch import Tensor

__all__ = ["calibration_error", "mcnemar", "mean_interval", "wilson_interval"]

_Z = 1.959963984540054  # 97.5 % of the normal distribution lie below
_BINS = 15


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate in percent (Wilson 1927).

    >>> [round(end, 1) for end in wilson_interval(90, 100)]
    [82.6, 94.5]
    """
    rate, z2 = hits / count, _Z**2 / count
    centre = rate + z2 / 2
    half = _Z * math.sqrt(rate * (1 - rate) / count + z2 / (4 * count))
    low, high = (100 * (centre + side) / (1 + z2) for side in (-half, half))
    return max(0.0, low), min(100.0, high)


def mean_interval(values: Tensor, ends: tuple[float, float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean over images, times 100.

    The normal interval after one image more at each end of the range. For differences of two networks on the same
    images, within (-1, 1), this is the interval of Bonett & Price (2012): without these two images it would be too
    narrow where the networks differ in few.

    >>> [round(end, 2) for end in mean_interval(torch.tensor([1.0] * 9 + [-1.0] + [0.0] * 90), (-1.0, 1.0))]
    [1.36, 14.32]

    Args:
        values: (N,), of each image.
    """
    padded = torch.cat([values.double(), values.new_tensor(ends).double()])
    half = _Z * float(padded.std(correction=0)) / math.sqrt(len(padded))
    return 100 * (float(padded.mean()) - half), 100 * (float(padded.mean()) + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of two networks on the same images: the exact form of McNemar's test (1947).

    >>> mcnemar(1, 9)
    0.021484375

    Args:
        only_first: images that the first network alone gets right.
        only_second: images that the second alone gets right.
    """
    count = only_first + only_second
    fewer = torch.arange(min(only_first, only_second) + 1, dtype=torch.float64)
    ways = torch.lgamma(torch.tensor(count + 1.0, dtype=torch.float64)) - count * math.log(2)
    tail = (ways - torch.lgamma(fewer + 1) - torch.lgamma(count - fewer + 1)).exp().sum()
    return min(1.0, 2 * round(float(tail), 15))


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Return the expected calibration error in percent, over 15 bins of equal width (Guo et al. 2017, Eq. 5).

    Args:
        confidence: the probability of each predicted class, (N,), in [0, 1]; NaN counts as 0.
        right: whether the prediction is right, (N,), bool.
    """
    sure = confidence.double().nan_to_num(nan=0.0)
    bins = (sure * _BINS).ceil().clamp(1, _BINS).long() - 1
    gaps = torch.zeros(_BINS, dtype=torch.float64).index_add(0, bins, right.double() - sure)
    return 100 * float(gaps.abs().sum()) / len(sure)
