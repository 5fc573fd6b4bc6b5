"""What a page shows, as plain data: lists, numbers, text, images as text; sizes by their names."""

import base64
import io
import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import timm
import torch
import torchvision
from PIL import Image
from torch import Tensor

from rsconvert import __version__
from rsconvert.checkpoint import file_of
from rsconvert.data import EvaluationViews, Samples, Size, as_pillow, resolution_of
from rsconvert.errors import CheckpointError, ConfigError, DataError, one_line
from rsconvert.evaluation import (
    NETWORK,
    Evaluation,
    Predictions,
    processor_name,
    size_name,
    stored_costs,
)
from rsconvert.quantization import layout_of
from rsconvert.surgery import SwitchableModel
from rsconvert.text import read_pairs

__all__ = [
    "answer_facts",
    "data_uri",
    "draw_images",
    "draw_mistakes",
    "drawn_facts",
    "encoded_views",
    "file_facts",
    "made_facts",
    "network_facts",
    "read_class_names",
    "short_name",
]

# With more classes than these the page lists the most confused pairs instead of a confusion matrix.
_MATRIX_CLASSES, _MISTAKES = 20, 20

# NAME LABEL: the name goes to the first tab, or is one word.
_LABEL = r"((?=.*\t)[^\t]*[^\t\s]|\S+)\s+(.+)"


def made_facts(command: str | None, device: torch.device) -> dict[str, Any]:
    """Return when, by what and on what machine a page was made."""
    versions = {"rsconvert": __version__, "torch": torch.__version__, "torchvision": torchvision.__version__}
    return {
        "date": _utc(datetime.now(UTC).timestamp()),
        "command": command,
        "versions": {**versions, "timm": timm.__version__, "Python": platform.python_version()},
        "machine": _machine(device),
    }


def file_facts(checkpoint: str | Path) -> dict[str, Any]:
    """Return name, size and date of the file that a place means.

    Raises:
        CheckpointError: there is no such file.
    """
    path = Path(file_of(checkpoint))
    try:
        status = path.stat()
    except OSError as error:
        raise CheckpointError(
            f"{path} can't be read ({error.strerror}); a checkpoint or the folder of a run is needed."
        ) from error
    return {"name": str(path), "bytes": status.st_size, "date": _utc(status.st_mtime)}


def network_facts(net: SwitchableModel) -> dict[str, Any]:
    """Return what is known of a network without running it."""
    source = net.source
    plain = sum(p.numel() for p in net.at(net.native).parameters())
    scores = net.alpha.detach().float().softmax(0).tolist()
    return {
        "name": source.architecture or type(net.at(net.native)).__name__,
        "resolutions": list(net.resolutions),
        "task": source.task.name,
        "parameters": sum(p.numel() for p in net.parameters()) - net.alpha.numel(),
        "plain_parameters": plain,
        "batchnorms": sum(1 for _ in net.switchable_bns()),
        "quantized": _quantized(net),
        "private": net.private,
        "heads": [name for name, _ in net.switchable_heads()],
        "head_parameters": sum(p.numel() for _, head in net.switchable_heads() for p in head.at.parameters()),
        "importance": {str(r): score for r, score in zip(net.resolutions, scores, strict=True)},
        "preprocessing": dict(vars(source.preprocessing)),
        "weights": source.weights,
        "training": None if source.training is None else dict(source.training),
        "costs": {machine: [dict(row) for row in rows] for machine, rows in stored_costs(net).items()},
    }


def answer_facts(found: Predictions, evaluation: Evaluation, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the figures of all paths, from the largest size to the smallest.

    ``complementarity`` is the share of images, in percent, that the path of the row gets right and that of the column
    does not; ``any_path`` of those that any path gets right; ``confusion`` of few classes counts predictions (columns)
    by truth (rows), ``mistakes`` of many are the most frequent (truth, prediction, images), with ``class_images``.

    Args:
        evaluation: of the predictions, with classes.
        labels: what to call the classes; None takes their names in the data.
    """
    answers = found.answers[NETWORK]
    sizes, right = _sizes(found), _right(found)
    names = list(labels or found.classes or map(str, range(_outputs(found))))
    only = [[100 * float((a & ~b).double().mean()) for b in right] for a in right]
    truths = found.targets.tolist()
    counts = {size_name(size): Counter(zip(truths, answers[size].best.tolist(), strict=True)) for size in sizes}
    small = len(names) <= _MATRIX_CLASSES
    return {
        "sizes": [size_name(size) for size in sizes],
        "classes": names,
        "evaluation": evaluation.to_dict(),
        "complementarity": only,
        "any_path": 100 * float(right.any(0).double().mean()),
        "confusion": {size: _matrix(pairs, len(names)) for size, pairs in counts.items()} if small else None,
        "mistakes": None if small else {size: _mistakes(pairs) for size, pairs in counts.items()},
        "class_images": torch.bincount(found.targets, minlength=len(names)).tolist(),
    }


def draw_images(count: int, of: int, seed: int) -> list[int]:
    """Return the sorted indices of images drawn without replacement; all if there are no more.

    Raises:
        ConfigError: the count is negative.
    """
    if count < 0:
        raise ConfigError(f"examples is {count}; a number of images of 0 or more is accepted.")
    return sorted(Random(seed).sample(range(of), min(count, of)))


def draw_mistakes(found: Predictions, drawn: Sequence[int], count: int, seed: int) -> list[int]:
    """Return the sorted indices of further images, drawn from those that the network gets wrong at some size."""
    wrong = [i for i, right in enumerate(_right(found).all(0).tolist()) if not right]
    others = sorted(set(wrong) - set(drawn))
    return sorted(Random(seed).sample(others, min(count, len(others))))


def drawn_facts(found: Predictions, drawn: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return name, truth and predictions of some of the images: network → size → (class, confidence)."""
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


def encoded_views(found: Predictions, samples: Samples, drawn: Sequence[int]) -> Iterator[dict[str, str]]:
    """Yield for each drawn image its view at every size, a JPEG as a data URI, by the size's name.

    Raises:
        DataError: one can't be read.
    """
    subject = found.subjects[NETWORK]
    how, sizes = subject.preprocessing, list(subject.paths)
    views = EvaluationViews(
        samples, sizes, crop_pct=subject.crop_pct, interpolation=how.interpolation, channels=how.channels
    )
    for index in drawn:
        seen = views[index]
        if isinstance(seen, DataError):
            raise seen
        shown = [data_uri(as_pillow(view)) for view in seen[0]]
        yield dict(zip(map(size_name, subject.paths), shown, strict=True))


def short_name(samples: Samples, index: int) -> str:
    """Return the file of a sample with the name of its folder."""
    return "/".join(Path(samples.name(index)).parts[-2:])


def read_class_names(path: str | Path, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return what to call each class, in the order of ``classes``.

    The file is a JSON object, ``{"n01440764": "tench", …}``, or has a line ``NAME LABEL`` for each class, with a tab or
    blanks between. It may name more classes than the data holds.

    Raises:
        DataError: the file can't be read, or lacks a class; ``classes`` is None.
    """
    if classes is None:
        raise DataError(f"class names {path} need classes with names; the data has none.")
    try:
        labels = {name: str(label) for name, label in read_pairs(path, _LABEL)}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"class names {path} can't be read ({one_line(error)}); a JSON object of names and labels, or "
            "lines NAME LABEL, are needed."
        ) from error
    if missing := [name for name in classes if name not in labels]:
        raise DataError(
            f"class names {path} lack {missing[0]!r}; each of the {len(classes)} classes of the data needs a label."
        )
    return tuple(labels[name] for name in classes)


def data_uri(picture: Image.Image) -> str:
    """Return a picture as text: a JPEG of high quality."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _quantized(net: SwitchableModel) -> dict[str, int]:
    """Return how many convolutions have which bits, as ``weights/activations``."""
    return dict(Counter(f"{weights}/{activations}" for weights, activations in layout_of(net).values()))


def _sizes(found: Predictions) -> list[Size]:
    """Return the sizes of the network's paths, from the largest to the smallest."""
    return sorted((size for size in found.answers[NETWORK] if size is not None), key=resolution_of, reverse=True)


def _right(found: Predictions) -> Tensor:
    """Return which images each path gets right: (sizes, images)."""
    return torch.stack([found.right(NETWORK, size) for size in _sizes(found)])


def _outputs(found: Predictions) -> int:
    """Return how many classes there are where they have no names: those of the labels and the predictions."""
    predicted = [answers.best for by_size in found.answers.values() for answers in by_size.values()]
    return 1 + int(max(tensor.max() for tensor in (found.targets, *predicted)))


def _matrix(counts: Counter[tuple[int, int]], classes: int) -> list[list[int]]:
    return [[counts[truth, prediction] for prediction in range(classes)] for truth in range(classes)]


def _mistakes(counts: Counter[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return the most frequent wrong predictions: (truth, prediction, images)."""
    wrong = [(*pair, number) for pair, number in counts.most_common() if pair[0] != pair[1]]
    return wrong[:_MISTAKES]


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {os.cpu_count()} cores, torch threads: {torch.get_num_threads()}"
