"""What makes figures meaningless: values or logits that are not finite, classes that are never predicted."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rsconvert.data import Size
from rsconvert.evaluation.predictions import Predictions
from rsconvert.evaluation.sizes import size_name

__all__ = ["doubts", "unsound_values"]

_FEW = 5  # images with a class, of which none may be recognised by chance


def unsound_values(net: nn.Module) -> str | None:
    """Return in one line which tensors of a network hold NaN or infinite values; None if none does."""
    state = net.state_dict().items()
    wrong = [name for name, t in state if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if not wrong:
        return None
    shown = ", ".join(wrong[:3]) + (", …" if len(wrong) > 3 else "")
    return f"{len(wrong)} tensors hold values that are not finite: {shown}; what the network predicts means nothing"


def doubts(found: Predictions) -> Iterator[str]:
    """Yield a line for each size at which logits are not finite, or classes with images are never predicted.

    Of masks a class counts that at least five of them hold, and is predicted if any labelled position is.
    """
    for network, size, broken, present, predicted in _figures(found):
        where = f"{network} at {size_name(size)}" if size is not None else f"the ensemble of {network}"
        never = [found.class_labels[i] for i in (present & ~predicted).nonzero().flatten().tolist()]
        if broken:
            yield f"{where} gives logits that are not finite for {broken} of {len(found.targets)} images"
        elif never:
            shown = ", ".join(never[:3]) + (", …" if len(never) > 3 else "")
            yield f"{where} never predicts {len(never)} of {len(present)} classes: {shown}"


def _figures(found: Predictions) -> Iterator[tuple[str, Size | None, int, Tensor, Tensor]]:
    """Yield of each path the images with broken logits, and which classes are there and are predicted, both (C,)."""
    classes = len(found.class_labels)
    for network, by_size in found.answers.items():
        present = found.targets.bincount(minlength=classes) >= _FEW
        for size, answers in by_size.items():
            broken = int((~torch.isfinite(answers.confidence)).sum())
            yield network, size, broken, present, answers.best.bincount(minlength=classes)[:classes] > 0
    for network, overlaps in found.overlaps.items():
        held = (found.targets > 0).sum(0) >= _FEW
        for size, overlap in overlaps.items():
            yield network, size, overlap.broken, held, overlap.matrix.sum(0) > 0
