"""What one path says of images: its answers, how sure it is of each, whether the target is among the best five."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Answers"]


@dataclass(frozen=True)
class Answers:
    """What one path says of N images, in the order of the data.

    Attributes:
        best: its answer, (N,), int64: a class of the data.
        confidence: the probability that it gives its answer, (N,), float32.
        among_five: whether the target is among the five best classes, (N,), bool.
        logits: (N, classes), at least float32, if they were asked for.
    """

    best: Tensor
    confidence: Tensor
    among_five: Tensor
    logits: Tensor | None = None

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor, *, keep_logits: bool = False) -> "Answers":
        """Read off logits (N, C) what they say of images of these targets, (N,)."""
        five = logits.topk(min(5, logits.shape[1]), dim=1).indices
        best = five[:, 0]
        among_five = (five == targets[:, None]).any(1)
        confidence = logits.softmax(1).gather(1, best[:, None])[:, 0].float()
        return cls(best, confidence, among_five, logits if keep_logits else None)

    @classmethod
    def joined(cls, parts: Sequence["Answers"]) -> "Answers":
        """Put those of several batches one behind the other, on the CPU; of none, no answers."""
        empty = torch.zeros(0)
        every = parts or [cls(empty.long(), empty, empty.bool())]
        logits = [part.logits for part in every if part.logits is not None]
        return cls(
            torch.cat([part.best for part in every]).cpu(),
            torch.cat([part.confidence for part in every]).cpu(),
            torch.cat([part.among_five for part in every]).cpu(),
            torch.cat(logits).cpu() if logits else None,
        )

    def taken(self, order: Tensor) -> "Answers":
        """Return those of some images, by their places (M,)."""
        logits = None if self.logits is None else self.logits[order]
        return Answers(self.best[order], self.confidence[order], self.among_five[order], logits)
