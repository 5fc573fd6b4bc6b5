"""Statistics of what a BatchNorm receives, over many batches, in float64."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rsconvert.errors import TrainingError

__all__ = ["Estimator", "MovingAverage", "Population", "normalizing_by_batch"]


class Population:
    """Mean and variance over all values of all batches, E[x²] - E[x]² (Wu & Johnson 2021, Sec. 3.1).

    Batches are merged by their moments (Chan et al. 1983): the difference itself would cancel.
    """

    def __init__(self) -> None:
        self.batches = self._count = 0
        # Scalars of the CPU, which may be added to tensors of any device.
        self.mean = self.variance = torch.zeros((), dtype=torch.float64)

    def add(self, count: int, mean: Tensor, variance: Tensor) -> None:
        """Take the moments of a batch: the number of values per channel, mean and variance, (C,)."""
        self.batches += 1
        self._count += count
        share = count / self._count
        distance = mean - self.mean
        self.mean = self.mean + share * distance
        self.variance = (1 - share) * self.variance + share * variance + share * (1 - share) * distance.square()


class MovingAverage:
    """What a BatchNorm's own running average would be after the batches, from its present values on.

    A BatchNorm without momentum averages its batches, here only those of the calibration.
    """

    def __init__(self, bn: Any) -> None:
        self._momentum: float | None = bn.momentum
        self.batches = 0
        self.mean: Tensor = bn.running_mean.double()
        self.variance: Tensor = bn.running_var.double()

    def add(self, count: int, mean: Tensor, variance: Tensor) -> None:
        """As of `Population`."""
        self.batches += 1
        share = 1 / self.batches if self._momentum is None else self._momentum
        self.mean = torch.lerp(self.mean, mean, share)
        # Like torch's own, it averages unbiased variances.
        self.variance = torch.lerp(self.variance, variance * (count / (count - 1)), share)


Estimator = Population | MovingAverage


@contextmanager
def normalizing_by_batch(bn: Any, name: str, estimator: Estimator) -> Iterator[None]:
    """Make a BatchNorm in eval mode normalize each batch by the batch's own statistics, and collect these.

    Unlike train mode this changes nothing else: dropout stays off, nothing counts batches. Its own statistics come back
    at the end.

    Raises:
        TrainingError: from the forward: a channel of a batch has one value, which has no variance.
    """

    def take(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x: Tensor = next(iter((*args, *kwargs.values())))
        if x.numel() == 0:
            return
        count = x.numel() // x.shape[1]
        if count == 1:
            raise TrainingError(
                f"{name} gets one value per channel in a batch, which has no variance; two are needed. "
                "Take more images, or another batch size."
            )
        variance, mean = torch.var_mean(x.double(), [0, *range(2, x.ndim)], correction=0)
        estimator.add(count, mean, variance)
        bn.running_mean.copy_(mean)
        bn.running_var.copy_(variance)

    before = bn.running_mean.clone(), bn.running_var.clone()
    handle = bn.register_forward_pre_hook(take, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
        bn.running_mean.copy_(before[0])
        bn.running_var.copy_(before[1])
