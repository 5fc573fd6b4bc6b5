"""What networks answered, as the plain data that the page shows: lists, numbers, text; sizes by their names."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from rsconvert.data import Size
from rsconvert.evaluation import NETWORK, Predictions, resolution_of, size_name, stored_costs, summarize
from rsconvert.surgery import SwitchableModel

__all__ = ["MATRIX_CLASSES", "answer_facts", "drawn_facts", "network_facts"]

MATRIX_CLASSES = 20
"""With more classes than these the page lists the most frequent mistakes instead of a confusion matrix."""

_MISTAKES = 12


def network_facts(net: SwitchableModel) -> dict[str, Any]:
    """Return what is known of a network without running it."""
    source = net.source
    plain = sum(p.numel() for p in net.at(net.native).parameters())
    scores = net.alpha.detach().float().softmax(0).tolist()
    return {
        "name": source.architecture or type(net.at(net.native)).__name__,
        "resolutions": list(net.resolutions),
        "parameters": sum(p.numel() for p in net.parameters()) - net.alpha.numel(),
        "plain_parameters": plain,
        "batchnorms": sum(1 for _ in net.switchable_bns()),
        "private": net.private,
        "importance": {str(r): score for r, score in zip(net.resolutions, scores, strict=True)},
        "preprocessing": dict(vars(source.preprocessing)),
        "weights": source.weights,
        "training": None if source.training is None else dict(source.training),
        "costs": {machine: [dict(row) for row in rows] for machine, rows in stored_costs(net).items()},
    }


def answer_facts(found: Predictions, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the figures of all paths, from the largest size to the smallest.

    ``evaluation`` is that of ``evaluate``, with classes; ``complementarity`` the share of images, in percent, that the
    path of the row gets right and that of the column does not; ``any_path`` of those that any path gets right;
    ``confusion`` of few classes counts answers (columns) by truth (rows), ``mistakes`` of many are the most frequent
    (truth, answer, images).

    Args:
        labels: what to call the classes; None takes their names in the data.
    """
    answers = found.answers[NETWORK]
    sizes = sorted((size for size in answers if size is not None), key=resolution_of, reverse=True)
    names = list(labels or found.classes or map(str, range(_outputs(found))))
    right = torch.stack([found.right(NETWORK, size) for size in sizes])
    only = [[100 * float((a & ~b).double().mean()) for b in right] for a in right]
    counts = {size_name(size): _counts(found, size) for size in sizes}
    small = len(names) <= MATRIX_CLASSES
    return {
        "sizes": [size_name(size) for size in sizes],
        "classes": names,
        "evaluation": summarize(found, per_class=True).to_dict(),
        "complementarity": only,
        "any_path": 100 * float(right.any(0).double().mean()),
        "confusion": {size: _matrix(pairs, len(names)) for size, pairs in counts.items()} if small else None,
        "mistakes": None if small else {size: _mistakes(pairs) for size, pairs in counts.items()},
    }


def drawn_facts(found: Predictions, drawn: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return name, truth and answers of some of the images: network → size → (class, confidence)."""
    return [
        {
            "index": index,
            "name": name,
            "target": int(found.targets[index]),
            "answers": {
                network: {
                    "ensemble" if size is None else size_name(size): [int(a.best[index]), float(a.confidence[index])]
                    for size, a in by_size.items()
                }
                for network, by_size in found.answers.items()
            },
        }
        for index, name in zip(drawn, names, strict=True)
    ]


def _outputs(found: Predictions) -> int:
    """Return how many classes there are where they have no names: those seen or answered."""
    answered = [answers.best for by_size in found.answers.values() for answers in by_size.values()]
    return 1 + int(max(tensor.max() for tensor in (found.targets, *answered)))


def _counts(found: Predictions, size: Size) -> Counter[tuple[int, int]]:
    """Return how many images of a class (first) got an answer (second)."""
    return Counter(zip(found.targets.tolist(), found.answers[NETWORK][size].best.tolist(), strict=True))


def _matrix(counts: Counter[tuple[int, int]], classes: int) -> list[list[int]]:
    return [[counts[truth, answer] for answer in range(classes)] for truth in range(classes)]


def _mistakes(counts: Counter[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return the most frequent wrong answers: (truth, answer, images)."""
    wrong = [(*pair, number) for pair, number in counts.most_common() if pair[0] != pair[1]]
    return wrong[:_MISTAKES]
