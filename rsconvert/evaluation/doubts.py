"""What makes figures meaningless: values or logits that are not finite, classes that are never predicted."""

from collections.abc import Iterator

import torch
from torch import nn

from rsconvert.evaluation.predictions import Predictions
from rsconvert.evaluation.sizes import size_name

__all__ = ["doubts", "unsound_values"]

_FEW = 5  # images of a class, of which none may be recognised by chance


def unsound_values(net: nn.Module) -> str | None:
    """Return in one line which tensors of a network hold NaN or infinite values; None if none does."""
    state = net.state_dict().items()
    wrong = [name for name, t in state if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if not wrong:
        return None
    shown = ", ".join(wrong[:3]) + (", …" if len(wrong) > 3 else "")
    return f"{len(wrong)} tensors hold values that are not finite: {shown}; what the network predicts means nothing"


def doubts(found: Predictions) -> Iterator[str]:
    """Yield a line for each size at which logits are not finite, or classes with images are never predicted."""
    for network, by_size in found.answers.items():
        present = found.targets.bincount(minlength=len(found.class_labels)) >= _FEW
        for size, answers in by_size.items():
            where = f"{network} at {size_name(size)}" if size is not None else f"the ensemble of {network}"
            if broken := int((~torch.isfinite(answers.confidence)).sum()):
                yield f"{where} gives logits that are not finite for {broken} of {len(found.targets)} images"
                continue
            predicted = answers.best.bincount(minlength=len(present))[: len(present)] > 0
            if never := [found.class_labels[i] for i in (present & ~predicted).nonzero().flatten().tolist()]:
                shown = ", ".join(never[:3]) + (", …" if len(never) > 3 else "")
                yield f"{where} never predicts {len(never)} of {len(present)} classes: {shown}"
