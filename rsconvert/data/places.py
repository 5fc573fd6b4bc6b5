"""Which of the S views a batch has."""

from random import Random

__all__ = ["draw_places"]


def draw_places(views: int, drawn: int, *, seed: int, epoch: int, batch: int) -> list[int]:
    """Return which of S views a batch has: the first, the last and others between, a function of all arguments.

    Args:
        drawn: how many, from 3 to S; S are all.
    """
    if drawn == views:
        return list(range(views))
    between = Random(f"{seed}-{epoch}-{batch}-views").sample(range(1, views - 1), drawn - 2)
    return [0, *sorted(between), views - 1]
