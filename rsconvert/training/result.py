"""FinetuneResult: the rows of a run, and which epoch is the best."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from rsconvert.training.run import Row

__all__ = ["FinetuneResult"]


@dataclass(frozen=True)
class FinetuneResult(Sequence[Row]):
    """What a run reached: a sequence of its rows, one per epoch as in ``summary.csv``, rates and shares in percent.

    ``best`` is the epoch, counted from 1, whose network ``best.safetensors`` holds: the first of the highest top-1 as
    ``FinetuneConfig.best`` counts it, before the rows were rounded.
    """

    rows: tuple[Row, ...]
    best: int

    @property
    def best_row(self) -> Row:
        """The row of the best epoch."""
        return next(row for row in self.rows if row["epoch"] == self.best)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Row, ...]: ...

    def __getitem__(self, place: int | slice) -> Row | tuple[Row, ...]:
        return self.rows[place]
