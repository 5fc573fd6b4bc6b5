"""Accuracy at every resolution, and of the ensemble; of other networks beside it on the same images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsconvert.data import Samples, Size, ViewLoader, evaluation_loader
from rsconvert.errors import ConfigError
from rsconvert.evaluation.answers import Answers
from rsconvert.evaluation.device import Amp, choose_precision
from rsconvert.evaluation.distributed import running_processes
from rsconvert.evaluation.predictions import Predictions, collect, predict
from rsconvert.evaluation.results import Accuracy, Evaluation, Paired
from rsconvert.evaluation.subject import Subject, crop_shares
from rsconvert.evaluation.uncertainty import calibration_error, mcnemar, wilson_interval
from rsconvert.surgery import SwitchableModel, check_resolutions

__all__ = ["NETWORK", "evaluate", "measure", "summarize", "validation_loader", "with_baselines"]

NETWORK = "network"
"""The name, among the baselines, of the network that is evaluated."""


def evaluate(
    net: SwitchableModel,
    data: str | Path | Samples,
    resolutions: Sequence[Size] | None = None,
    *,
    baselines: Mapping[str, nn.Module] | None = None,
    per_class: bool = False,
    batch_size: int = 64,
    workers: int = 2,
    device: str | torch.device | None = None,
    amp: Amp = None,
    data_root: str | None = None,
    class_map: str | Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measure a network on labelled images at trained and interpolated resolutions, and others beside it.

    Images are resized and cropped as ``net.source.preprocessing`` says; the ensemble weighs the logits of the trained
    resolutions by softmax(alpha) (RS-Nets, Eq. 5). The network's modes are left as they are. In a process group of
    torch.distributed all processes must call it with the same network; they share the images, count each once, and
    each gets the whole result, the same as of one process.

    Args:
        data: a folder with ``val/``, a timm data-set string, or opened samples.
        resolutions: in pixels, or pairs (height, width), reported in this order; None takes the trained ones.
        baselines: other networks by name, switchable or plain, each with its own preprocessing; a plain one runs at
            every resolution as it is. The name ``network`` is taken.
        per_class: tell the accuracy of each class too.
        device: where to compute, and where the networks stay; None takes a GPU if there is one. In a process group
            ``cuda`` is the GPU of LOCAL_RANK.
        amp: the precision of autocast: ``bf16``, ``fp16``, ``off`` (the network's own) or torch's type; None takes bf16
            on a GPU that computes in it, else ``off``.
        data_root: where a timm data-set string finds its files.
        class_map: a file that gives each class of the data its output, see ``read_class_map``, for networks that know
            more classes; hits are counted among the outputs in it.
        progress: show a bar on stderr.
    Raises:
        DataError: there are no images; one can't be read; its classes are not the network's, or do not fit the map.
        ResolutionError: a resolution is malformed, or does not work in a network.
        UnsupportedModelError: a network's output is not logits (N, C).
        ConfigError: a setting is unusable, or there is no such device here.
        TrainingError: memory ran out; another process failed or ended.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "amp": amp}
    options |= {"data_root": data_root, "class_map": class_map}
    sizes = net.resolutions if resolutions is None else resolutions
    with running_processes(None if device is None else str(device)) as processes:
        options |= {"device": processes.device, "progress": progress and processes.leads}
        found = predict(with_baselines(net, baselines), data, sizes, **options, processes=processes)
    return summarize(found, per_class=per_class)


def with_baselines(net: nn.Module, baselines: Mapping[str, nn.Module] | None) -> dict[str, nn.Module]:
    """Return networks by name for ``predict``: a network as ``network``, and others.

    Raises:
        ConfigError: another one has that name.
    """
    if NETWORK in (baselines or {}):
        raise ConfigError(f"a baseline is named {NETWORK}, as the network itself; another name is needed. Rename it.")
    return {**(baselines or {}), NETWORK: net}


def summarize(found: Predictions, *, per_class: bool = False) -> Evaluation:
    """Count what networks answered: the one named ``network``, with the others as baselines, paired image by image."""
    others = [name for name in found.answers if name != NETWORK]
    classes = found.classes or tuple(str(c) for c in range(int(found.targets.max()) + 1))
    told = classes if per_class else None
    result = _evaluation(found, NETWORK, told, None)
    baselines = {name: _evaluation(found, name, told, NETWORK) for name in others}
    return replace(result, baselines=baselines, classes=told)


def validation_loader(
    net: SwitchableModel,
    samples: Samples,
    resolutions: Sequence[int] | None = None,
    *,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
) -> ViewLoader:
    """Return the images as a network sees them, cropped as its preprocessing says; None takes its resolutions.

    Of ``world_size`` processes each takes a share, which may be empty.

    Raises:
        ConfigError, ResolutionError: a setting is unusable.
    """
    asked = net.resolutions if resolutions is None else resolutions
    for r in asked:
        check_resolutions([r])
    return evaluation_loader(
        samples,
        asked,
        batch_size=batch_size,
        workers=workers,
        crop_pct=crop_shares(net.source.preprocessing, net.resolutions, asked),
        interpolation=net.source.preprocessing.interpolation,
        pin_memory=net.alpha.device.type == "cuda",
        rank=rank,
        world_size=world_size,
    )


def measure(
    net: SwitchableModel,
    loader: ViewLoader,
    resolutions: Sequence[int] | None = None,
    *,
    amp: Amp = None,
    outputs: Sequence[int] | None = None,
    progress: bool = False,
    check: Callable[[], None] = lambda: None,
    reduce: Callable[[Tensor], Tensor] = lambda number: number,
) -> Evaluation:
    """Measure a network on the batches of `validation_loader`, which may be used again: its rates alone.

    Args:
        resolutions: those of the loader; None takes the trained ones.
        amp: as of ``evaluate``.
        outputs: the output of each class, where the network has more of them: hits are counted among these alone.
        check: is called after each batch, and may raise.
        reduce: is called on each number of hits, int64 (2,), and on the number of images, int64 (); if each process
            measures a share of the images, it adds them up.
    Raises:
        DataError, ResolutionError, UnsupportedModelError: as `evaluate`.
    """
    subject = Subject(net, net.resolutions if resolutions is None else resolutions, outputs)
    precision = choose_precision(amp, net.alpha.device)
    found, targets = collect({NETWORK: subject}, loader, amp=precision, progress=progress, check=check)
    count = int(reduce(torch.tensor(len(targets), device=net.alpha.device)))
    rows = {
        size: _rates(reduce(_hits(answers, targets).to(net.alpha.device)), count, subject, size)
        for size, answers in found[NETWORK].items()
    }
    return _split(count, rows)


def _hits(answers: Answers, targets: Tensor) -> Tensor:
    """Return how many targets are the answer, and among the five best: int64, (2,)."""
    return torch.stack([(answers.best == targets).sum(), answers.among_five.sum()])


def _rates(hits: Tensor, count: int, subject: Subject, size: Size | None) -> Accuracy:
    top1, top5 = (100 * number / count for number in hits.tolist())
    if size is None:
        return Accuracy(top1, top5)
    return Accuracy(top1, top5, subject.costs[size], subject.interpolated(size))


def _split(count: int, rows: dict[Size | None, Accuracy]) -> Evaluation:
    """Return rows with that of the ensemble, if there is one, beside those of the paths."""
    paths = {size: row for size, row in rows.items() if size is not None}
    return Evaluation(count, paths, rows.get(None))


def _evaluation(found: Predictions, name: str, classes: Sequence[str] | None, against: str | None) -> Evaluation:
    rows = {size: _row(found, name, size, classes, against) for size in found.answers[name]}
    return _split(len(found.targets), rows)


def _row(
    found: Predictions, name: str, size: Size | None, classes: Sequence[str] | None, against: str | None
) -> Accuracy:
    answers, right = found.answers[name][size], found.right(name, size)
    hits, count = _hits(answers, found.targets), len(right)
    return replace(
        _rates(hits, count, found.subjects[name], size),
        top1_interval=wilson_interval(int(hits[0]), count),
        calibration_error=calibration_error(answers.confidence, right),
        per_class=None if classes is None else _by_class(right, found.targets, len(classes)),
        paired=None if against is None else _paired(found, against, right, size),
    )


def _by_class(right: Tensor, targets: Tensor, classes: int) -> tuple[float | None, ...]:
    hits = torch.bincount(targets, right.double(), minlength=classes)
    counts = torch.bincount(targets, minlength=classes)
    return tuple(
        100 * hit / count if count else None for hit, count in zip(hits.tolist(), counts.tolist(), strict=True)
    )


def _paired(found: Predictions, against: str, right: Tensor, size: Size | None) -> Paired | None:
    if size not in found.answers[against]:
        return None
    first = found.right(against, size)
    only_network, only_baseline = int((first & ~right).sum()), int((right & ~first).sum())
    return Paired(only_network, only_baseline, mcnemar(only_network, only_baseline))
