"""Progress: where a run stands, as plain data that a state keeps and that a run goes on from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Progress", "Row"]

Row = dict[str, Any]


@dataclass
class Progress:
    """Full epochs done; of the one in progress the batches, the sums of their losses, seconds, seconds without data.

    ``best`` is the highest score of an epoch, ``best_epoch`` the first with it, counted from 1; 0 before it is known.
    ``saves`` counts the states written, and numbers them.
    """

    epoch: int = 0
    batches: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    seconds: float = 0.0
    waited: float = 0.0
    rows: list[Row] = field(default_factory=list)
    best: float | None = None
    best_epoch: int = 0
    saves: int = 0

    @property
    def started(self) -> bool:
        """Whether anything was done."""
        return self.epoch > 0 or self.batches > 0

    def add(self, parts: Sequence[float]) -> None:
        """Count a batch with the parts of its loss."""
        self.sums = [a + b for a, b in zip(self.sums, parts, strict=True)]
        self.batches += 1

    def next_epoch(self, row: Row, score: float) -> bool:
        """Close the epoch in progress; return whether it is the best one so far, the first of equals."""
        is_best = self.best is None or score > self.best
        self.rows.append(row)
        self.epoch += 1
        if is_best:
            self.best, self.best_epoch = score, self.epoch
        self.begin_epoch()
        return is_best

    def begin_epoch(self) -> None:
        """Forget what was done of the epoch in progress."""
        self.batches, self.sums, self.seconds, self.waited = 0, [0.0] * 4, 0.0, 0.0
