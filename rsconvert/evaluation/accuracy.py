"""Accuracy at every resolution, and of the ensemble; of other networks on the same images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from rsconvert.data import Samples, Size, Split, ViewLoader
from rsconvert.errors import ConfigError, DataError
from rsconvert.evaluation.device import Amp, choose_precision
from rsconvert.evaluation.distributed import running_processes
from rsconvert.evaluation.fitting import Masks
from rsconvert.evaluation.mask_accuracy import MaskAccuracy
from rsconvert.evaluation.overlap import Overlaps
from rsconvert.evaluation.predictions import Predictions, predict
from rsconvert.evaluation.results import Accuracy, Evaluation, Paired
from rsconvert.evaluation.subject import Subject, collect
from rsconvert.evaluation.uncertainty import calibration_error, wilson_interval
from rsconvert.surgery import SwitchableModel

__all__ = ["NETWORK", "evaluate", "measure", "summarize", "with_baselines"]

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
    masks: Masks | None = None,
    split: Split | float = "val",
    skip_broken: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Measure a network on labelled images at trained and interpolated resolutions, and others on the same images.

    Images are prepared as ``net.source.preprocessing`` says; the ensemble weighs the logits of the trained resolutions
    by softmax(alpha) (RS-Nets, Eq. 5). Modes are left as they are. In a process group of torch.distributed all
    processes must call it with the same network; they share the images, and each gets the result of one process.

    Args:
        data: a folder with ``val/`` (``split``) or of classes, a timm string (files in ``data_root``), or samples.
        resolutions: in pixels, or pairs (height, width), reported in this order; None takes the trained ones.
        baselines: other networks by name, switchable or plain, each with its own preprocessing; a plain one runs at
            every resolution as it is. The name ``network`` is taken.
        per_class: report the accuracy of each class too.
        device: where networks run and stay; None takes a GPU if there is one. ``cuda`` of a group: that of LOCAL_RANK.
        amp: of autocast: ``bf16``, ``fp16``, ``off`` (the network's own) or torch's type; None takes bf16 on a GPU that
            computes in it, else ``off``.
        class_map: gives each class of the data its output, see ``read_class_map``; hits are counted among these.
        masks: how masks of segmentation are read and images become views; scores are those at the masks' own size.
        skip_broken: images that can't be read and may be left out, see ``without_broken``; they don't count.
    Raises:
        DataError: there are no images; one can't be read; its classes are not the network's, or do not fit the map.
        ResolutionError: a resolution is malformed, or does not work in a network.
        UnsupportedModelError: a network's output is not logits (N, C).
        ConfigError: a setting is unusable, or there is no such device here.
        TrainingError: memory ran out; another process failed or ended.
    """
    ask = partial(predict, batch_size=batch_size, workers=workers, amp=amp, data_root=data_root, class_map=class_map)
    ask = partial(ask, masks=masks, split=split, skip_broken=skip_broken)
    networks, sizes = with_baselines(net, baselines), net.resolutions if resolutions is None else resolutions
    with running_processes(None if device is None else str(device)) as processes:
        ask = partial(ask, device=processes.device, progress=progress and processes.leads)
        found = ask(networks, data, sizes, processes=processes)
    return summarize(found, per_class=per_class)


def with_baselines(net: nn.Module, baselines: Mapping[str, nn.Module] | None) -> dict[str, nn.Module]:
    """Return networks by name for ``predict``: a network as ``network``, and others, which may not have that name."""
    if NETWORK in (baselines or {}):
        raise ConfigError(f"a baseline is named {NETWORK}, as the network itself; another name is needed.")
    return {**(baselines or {}), NETWORK: net}


def summarize(found: Predictions, *, per_class: bool = False) -> Evaluation:
    """Count the hits of networks: the one named ``network``, with the others as baselines, paired image by image."""
    classes = found.class_labels
    results = {name: _evaluation(found, name, len(classes) if per_class else None) for name in found.subjects}
    return replace(results.pop(NETWORK), baselines=results, classes=classes if per_class else None)


def measure(
    net: SwitchableModel,
    loader: ViewLoader,
    *,
    amp: Amp = None,
    outputs: Sequence[int] | None = None,
    progress: bool = False,
    check: Callable[[], None] = lambda: None,
    reduce: Callable[[Tensor], Tensor] = lambda number: number,
    resize: str = "squash",
) -> Evaluation:
    """Measure the trained resolutions on a `validation_loader` of them, which may be used again: the rates alone.

    Its errors, and what is not said here, are those of `evaluate`.

    Args:
        outputs: the output of each class, where the network has more of them: hits are counted among these alone.
        check: is called after each batch, and may raise.
        reduce: is called on each number of hits, int64 (2,), or matrix of confusions (C, C), and on the number of
            images, int64 (); if each process measures a share of the images, it adds them up.
        resize: how images with masks became the loader's views.
    """
    subject = Subject(net, net.resolutions, outputs, resize=resize)
    precision = choose_precision(amp, subject.device)
    found, targets = collect({NETWORK: subject}, loader, amp=precision, progress=progress, check=check)
    count = int(reduce(torch.tensor(len(targets), device=subject.device)))
    rows: dict[Size | None, Accuracy | MaskAccuracy] = {}
    for size, answers in found[NETWORK].items():
        if isinstance(answers, Overlaps):
            matrix = reduce(answers.matrix.to(subject.device)).cpu()
            rows[size] = _costed(MaskAccuracy.of_matrix(_labelled(matrix)), subject, size)
        else:
            hits = _hits(answers.best == targets, answers.among_five)
            rows[size] = _accuracy(reduce(hits.to(subject.device)), count, subject, size)
    return _by_size(count, rows)


def _evaluation(found: Predictions, name: str, classes: int | None) -> Evaluation:
    """Return what a network gets right, by class too if their number is given."""
    if found.overlaps:
        return _mask_evaluation(found, name, classes is not None)
    rows: dict[Size | None, Accuracy | MaskAccuracy] = {}
    count = len(found.targets)
    for size, answers in found.answers[name].items():
        right = found.right(name, size)
        paired = name != NETWORK and size in found.answers[NETWORK]
        rows[size] = replace(
            _accuracy(_hits(right, answers.among_five), count, found.subjects[name], size),
            top1_interval=wilson_interval(int(right.sum()), count),
            calibration_error=calibration_error(answers.confidence, right),
            per_class=None if classes is None else _by_class(right, found.targets, classes),
            paired=Paired.of(found.right(NETWORK, size), right) if paired else None,
        )
    return _by_size(count, rows)


def _mask_evaluation(found: Predictions, name: str, per_class: bool) -> Evaluation:
    rows: dict[Size | None, Accuracy | MaskAccuracy] = {}
    for size, own in found.overlaps[name].items():
        network = found.overlaps[NETWORK].get(size) if name != NETWORK else None
        _labelled(own.matrix)
        rows[size] = _costed(MaskAccuracy.of(own, network, per_class=per_class), found.subjects[name], size)
    return _by_size(len(found.targets), rows)


def _labelled(matrix: Tensor) -> Tensor:
    if not matrix.any():
        raise DataError(
            "the masks label no position, all hold the value that is ignored; a labelled position is needed. "
            "Check the masks, --ignore-index and --label-offset."
        )
    return matrix


def _costed(row: MaskAccuracy, subject: Subject, size: Size | None) -> MaskAccuracy:
    if size is None:
        return row
    return replace(row, multiply_adds=subject.costs[size], interpolated=subject.interpolated(size))


def _hits(right: Tensor, among_five: Tensor) -> Tensor:
    """Return how many targets are the prediction, and among the five best: int64, (2,)."""
    return torch.stack([right.sum(), among_five.sum()])


def _accuracy(hits: Tensor, count: int, subject: Subject, size: Size | None) -> Accuracy:
    top1, top5 = (100 * number / count for number in hits.tolist())
    if size is None:
        return Accuracy(top1, top5)
    return Accuracy(top1, top5, subject.costs[size], subject.interpolated(size))


def _by_size(count: int, rows: Mapping[Size | None, Accuracy | MaskAccuracy]) -> Evaluation:
    """Split rows into those of the paths and that of the ensemble, if there is one."""
    return Evaluation(count, {size: row for size, row in rows.items() if size is not None}, rows.get(None))


def _by_class(right: Tensor, targets: Tensor, classes: int) -> tuple[float | None, ...]:
    hits = torch.bincount(targets, right.double(), minlength=classes).tolist()
    counts = torch.bincount(targets, minlength=classes).tolist()
    return tuple(100 * hit / count if count else None for hit, count in zip(hits, counts, strict=True))
