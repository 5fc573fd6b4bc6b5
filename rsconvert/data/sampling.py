"""The order of an epoch, for each of several processes."""

from collections.abc import Iterator
from random import Random

import torch
from torch.utils.data import Sampler

__all__ = ["EpochSampler", "Key", "share_of_batches"]

Key = tuple[int, int]  # epoch, index


def share_of_batches(count: int, batch_size: int, *, rank: int, world_size: int) -> list[int]:
    """Return the indices that a process reads: every ``world_size``-th batch of those of one process, from its rank on.

    So each batch is as one process would run it, and each image is read once; a share may be empty.
    """
    starts = range(rank * batch_size, count, world_size * batch_size)
    return [index for start in starts for index in range(start, min(start + batch_size, count))]


class EpochSampler(Sampler[Key]):
    """Gives each index of this process once, as (epoch, index), in an order that is a function of (seed, epoch).

    Of ``world_size`` processes each takes its own, equally many; the few left over differ from epoch to epoch. The
    first ``skip`` of this process's order are left out, though the length still counts them.
    """

    def __init__(self, count: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.epoch = self.skip = 0
        self._count, self._seed, self._rank, self._world_size = count, seed, rank, world_size

    def __len__(self) -> int:
        return self._count // self._world_size

    def __iter__(self) -> Iterator[Key]:
        generator = torch.Generator().manual_seed(Random(f"{self._seed}-{self.epoch}").getrandbits(63))
        order = torch.randperm(self._count, generator=generator).tolist()
        mine = order[self._rank :: self._world_size][self.skip : len(self)]
        return iter([(self.epoch, index) for index in mine])
