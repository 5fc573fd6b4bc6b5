"""Thresholds from one half of labelled images, the cascade run on the other half.

images → answers of every path → halves → thresholds of the first, stored with the network → the second, measured
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsconvert.data import Samples, Stream, open_split, postponed_interrupts
from rsconvert.errors import DataError, ResolutionError
from rsconvert.evaluation import (
    NETWORK,
    Amp,
    Paired,
    Predictions,
    choose_device,
    choose_precision,
    mapped_outputs,
    mcnemar,
    plain_memory_errors,
    predict,
    wilson_interval,
)
from rsconvert.runtime.cascade.cascade import Cascade
from rsconvert.runtime.cascade.images import Feed, run_all, time_all
from rsconvert.runtime.cascade.results import CascadeReport, Outcome, PathFigures, best_path
from rsconvert.runtime.cascade.thresholds import Fitted, answering_stage, check_aim, fit_thresholds
from rsconvert.surgery import SwitchableModel, check_resolutions

__all__ = ["fit_cascade", "halves"]

_STEP = 16
_TIMED = 512  # images


def fit_cascade(
    net: SwitchableModel,
    data: str | Path | Samples,
    *,
    top1: float | None = None,
    multiply_adds: float | None = None,
    resolutions: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 2,
    device: str | torch.device | None = None,
    amp: Amp = None,
    data_root: str | None = None,
    class_map: str | Path | None = None,
    progress: bool = False,
) -> CascadeReport:
    """Fit a cascade to half of labelled images, store it in ``net.measured``, and measure it on the other half.

    The halves are drawn class by class. The network's modes are left as they are; of the other arguments see
    ``evaluate``.

    Args:
        top1: the accuracy to reach as cheaply as can be, in percent; None takes that of the best single path.
        multiply_adds: of one image, not to be exceeded on average by the most accurate cascade; in place of ``top1``.
        resolutions: the paths to try; None takes the trained ones, and every 16 pixels between.
        seed: of the halves.
    Raises:
        ResolutionError: there are fewer than two resolutions, or one does not work in the network.
        ConfigError: no cascade does what is asked, or a setting is unusable.
        DataError: there are too few images, they come as a stream, or do not fit the network.
        UnsupportedModelError, TrainingError: as ``evaluate``.
    """
    check_aim(top1, multiply_adds)
    tried = _tried(net, resolutions)
    samples = open_split(str(data), "val", root=data_root) if isinstance(data, str | Path) else data
    _check_samples(samples)
    where = choose_device(device)
    options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "progress": progress}
    options["amp"] = choose_precision(amp, where)
    found = predict({NETWORK: net}, samples, tried, device=where, class_map=class_map, **options)
    outputs = mapped_outputs(samples, class_map)
    with plain_memory_errors(batch_size, workers), postponed_interrupts() as check:
        feed = Feed(net, samples, check=check, **options)
        report = _report(found, feed, outputs, seed, top1, multiply_adds)
    record = report.record() | ({} if outputs is None else {"outputs": list(outputs)})
    net.measured = replace(net.measured, cascade=record)
    return report


def halves(targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the places of two halves of the images, each class halved at random, in ascending order.

    Args:
        targets: the class of each image, (N,).
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    order = order[targets[order].argsort(stable=True)]
    return order[::2].sort().values, order[1::2].sort().values


def _report(
    found: Predictions,
    feed: Feed,
    outputs: Sequence[int] | None,
    seed: int,
    top1: float | None,
    multiply_adds: float | None,
) -> CascadeReport:
    first, second = halves(found.targets, seed)
    confidence, right, costs = _table(found)
    fitted = fit_thresholds(confidence[:, first], right[:, first], costs, top1=top1, multiply_adds=multiply_adds)
    ready = Cascade(feed.net, fitted.stages, fitted.thresholds, outputs)
    tried = list(costs)[::-1]
    output = run_all(ready, feed.part(second), tried[0])
    times = time_all(ready, feed.part(second[:_TIMED]), tried)
    paths = {
        r: PathFigures(_percent(one[first]), _percent(one[second]), costs[r], times[r], r not in feed.net.resolutions)
        for r, one in zip(tried, right.flip(0), strict=True)
    }
    hits = _classes(output.logits, outputs) == found.targets[second]
    own = _by_own_views(fitted, confidence[:, second], right[:, second], list(costs))
    measured = _measured(fitted, hits, output.resolution, costs, own, times[None])
    paired = _paired(hits, right[list(costs).index(best_path(paths)), second])
    return CascadeReport(_aim(top1, multiply_adds, paths), seed, fitted, len(first), measured, paths, paired)


def _tried(net: SwitchableModel, resolutions: Sequence[int] | None) -> tuple[int, ...]:
    if resolutions is not None:
        tried = check_resolutions(resolutions)
    else:  # a network that is built for each size may not take any size
        between = range(net.resolutions[-1], net.native, _STEP) if net.build is None else ()
        tried = check_resolutions(list({*net.resolutions, *between}))
    if len(tried) < 2:
        raise ResolutionError(
            f"resolutions is {tried[0]} alone; a cascade goes from small to large, and needs two at least. Add one."
        )
    return tried


def _check_samples(samples: Samples) -> None:
    if isinstance(samples, Stream):
        raise DataError(
            "the data is a stream, which has no halves; images by index are needed. Take a folder or an hfds/ set."
        )
    if len(samples) < 2:
        raise DataError(
            f"the data holds {len(samples)} images; two at least are needed to fit and to measure. Add some."
        )


def _table(found: Predictions) -> tuple[Tensor, Tensor, dict[int, int]]:
    """Return how sure each path is, and whether it is right, (S, N), with its cost: from the smallest up."""
    answers, costs = found.answers[NETWORK], found.subjects[NETWORK].costs
    resolutions = sorted(r for r in answers if isinstance(r, int))
    confidence = torch.stack([answers[r].confidence for r in resolutions])
    return confidence, torch.stack([found.right(NETWORK, r) for r in resolutions]), {r: costs[r] for r in resolutions}


def _aim(top1: float | None, multiply_adds: float | None, paths: Mapping[int, PathFigures]) -> dict[str, float]:
    if multiply_adds is not None:
        return {"multiply_adds": multiply_adds}
    return {"top1": max(path.top1_fit for path in paths.values()) if top1 is None else top1}


def _by_own_views(fitted: Fitted, confidence: Tensor, right: Tensor, resolutions: Sequence[int]) -> float:
    rows = [resolutions.index(r) for r in fitted.stages]
    stage = answering_stage(confidence[rows], fitted.thresholds)
    return _percent(right[rows].gather(0, stage[None])[0])


def _measured(
    fitted: Fitted, hits: Tensor, answered: Tensor, costs: Mapping[int, int], own_views: float, milliseconds: float
) -> Outcome:
    spent = dict(zip(fitted.stages, accumulate(costs[r] for r in fitted.stages), strict=True))
    shares = {r: _percent(answered == r) for r in fitted.stages}
    mean = sum(spent[r] * share for r, share in shares.items()) / 100
    interval = wilson_interval(int(hits.sum()), len(hits))
    return Outcome(len(hits), _percent(hits), interval, own_views, mean, milliseconds, shares)


def _paired(hits: Tensor, other: Tensor) -> Paired:
    only_cascade, only_path = int((hits & ~other).sum()), int((other & ~hits).sum())
    return Paired(only_cascade, only_path, mcnemar(only_cascade, only_path))


def _classes(logits: Tensor, outputs: Sequence[int] | None) -> Tensor:
    return (logits if outputs is None else logits[:, list(outputs)]).argmax(1)


def _percent(right: Tensor) -> float:
    return 100 * float(right.double().mean())
