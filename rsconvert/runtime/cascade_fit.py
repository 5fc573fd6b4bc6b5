"""The fit of a cascade: thresholds from one half of labelled images, the cascade measured on the other half.

images → predictions of every path → halves → thresholds of the first, stored with the network → the second, measured as
a server would run it
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rsconvert.data import Samples, Split, Stream, postponed_interrupts, without_broken
from rsconvert.errors import DataError, ResolutionError
from rsconvert.evaluation import (
    NETWORK,
    Amp,
    Paired,
    Predictions,
    Subject,
    autocast,
    check_classifies,
    choose_precision,
    measure_latency,
    open_labelled,
    plain_memory_errors,
    predict,
    validation_loader,
    wilson_interval,
)
from rsconvert.runtime.cascade import Cascade, CascadeOutput
from rsconvert.runtime.cascade_report import CascadeReport, Outcome, PathFigures
from rsconvert.runtime.thresholds import Fitted, answering_stage, check_aim, fit_thresholds
from rsconvert.surgery import SwitchableModel, check_resolutions, eval_mode

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
    split: Split | float = "val",
    skip_broken: int = 0,
    progress: bool = False,
) -> CascadeReport:
    """Fit a cascade to half of labelled images, store it in ``net.measured``, and measure it on the other half.

    The halves are drawn class by class by ``seed``. The network's modes are left as they are; of the other arguments
    and errors see ``evaluate``.

    Args:
        top1: the accuracy to reach as cheaply as can be, in percent; None takes that of the best single path.
        multiply_adds: of one image, not to be exceeded on average by the most accurate cascade; in place of ``top1``.
        resolutions: the paths to try; None takes the trained ones, and every 16 pixels between.
    Raises:
        ResolutionError: there are fewer than two resolutions, or one does not work in the network.
        ConfigError: no cascade does what is asked, or a setting is unusable.
        DataError: there are too few images, they come as a stream, or do not fit the network.
    """
    check_aim(top1, multiply_adds)
    tried = _tried(net, resolutions)
    (samples,) = without_broken([_opened(net, data, data_root, class_map, split)], skip_broken, workers=workers)
    ask = partial(predict, batch_size=batch_size, workers=workers, device=device, amp=amp, class_map=class_map)
    found = ask({NETWORK: net}, samples, tried, progress=progress)
    with plain_memory_errors(batch_size, workers), postponed_interrupts() as check:
        feed = _Feed(net, found.subjects[NETWORK], samples, batch_size, workers, amp, progress, check)
        report = _report(found, feed, tried, seed, top1, multiply_adds)
    outputs = {} if feed.subject.outputs is None else {"outputs": list(feed.subject.outputs)}
    net.measured = replace(net.measured, cascade=report.record() | outputs)
    return report


def halves(targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the places of two halves of the images, each class halved at random, in ascending order.

    Args:
        targets: the class of each image, (N,).
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    order = order[targets[order].argsort(stable=True)]
    return order[::2].sort().values, order[1::2].sort().values


def _tried(net: SwitchableModel, resolutions: Sequence[int] | None) -> tuple[int, ...]:
    check_classifies(net, "a cascade")
    if resolutions is None:  # a network that is built for each size may not take any size
        between = range(net.resolutions[-1], net.native, _STEP) if net.build is None else ()
        resolutions = list({*net.resolutions, *between})
    tried = check_resolutions(resolutions)
    if len(tried) < 2:
        raise ResolutionError(
            f"resolutions is {tried[0]} alone; a cascade goes from small to large, and needs two at least. Add one."
        )
    return tried


def _opened(
    net: SwitchableModel,
    data: str | Path | Samples,
    root: str | None,
    class_map: str | Path | None,
    split: Split | float,
) -> Samples:
    samples = open_labelled(net, str(data), split, root=root) if isinstance(data, str | Path) else data
    if isinstance(samples, Stream):
        raise DataError(
            "the data is a stream, which has no halves; images by index are needed. Take a folder or an hfds/ set."
        )
    if len(samples) < 2:
        raise DataError(f"the data holds {len(samples)} images; two at least are needed to fit and to measure.")
    return samples if class_map is not None else samples.as_classes(net.source.class_names)


@dataclass(frozen=True)
class _Feed:
    """Images for a network, as it takes them, in batches."""

    net: SwitchableModel
    subject: Subject
    samples: Samples
    batch_size: int
    workers: int
    amp: Amp
    progress: bool
    check: Callable[[], None]

    @contextmanager
    def batches(self, places: Tensor, resolutions: Sequence[int], words: str) -> Iterator[Iterator[list[Tensor]]]:
        """Give normalized views of some images, (N, C, r, r) for each resolution, in eval mode and under autocast."""
        images = self.samples.subset(places.tolist())
        loader = validation_loader(self.net, images, resolutions, batch_size=self.batch_size, workers=self.workers)
        precision = autocast(self.subject.device, choose_precision(self.amp, self.subject.device))
        with eval_mode(self.subject.paths.values()), precision, closing(loader):
            shown = tqdm(loader, desc=words, unit="batch", disable=not self.progress, leave=False)
            yield (self._prepared(views) for views, _ in shown)

    def _prepared(self, views: Sequence[Tensor]) -> list[Tensor]:
        self.check()
        return [self.subject.images(view) for view in views]


def _report(
    found: Predictions, feed: _Feed, tried: Sequence[int], seed: int, top1: float | None, multiply_adds: float | None
) -> CascadeReport:
    """Fit a cascade to the first half of the images, and run it on the second."""
    first, second = halves(found.targets, seed)
    subject = feed.subject
    costs = {r: subject.costs[r] for r in tried[::-1]}
    confidence = {r: found.answers[NETWORK][r].confidence for r in costs}
    right = {r: found.right(NETWORK, r) for r in costs}
    fitted = fit_thresholds(
        _stacked(confidence, costs, first), _stacked(right, costs, first), costs, top1=top1, multiply_adds=multiply_adds
    )
    ready = Cascade(feed.net, fitted.stages, fitted.thresholds, subject.outputs)
    logits, answered = _run_all(ready, feed, second, tried[0])
    hits = (logits if subject.outputs is None else logits[:, list(subject.outputs)]).argmax(1) == found.targets[second]
    stage = answering_stage(_stacked(confidence, fitted.stages, second), fitted.thresholds)
    own_views = _percent(_stacked(right, fitted.stages, second).gather(0, stage[None]))
    times = _time_all(ready, feed, second[:_TIMED], tried)
    paths = {}
    for r in tried:
        on_halves = _percent(right[r][first]), _percent(right[r][second])
        paths[r] = PathFigures(*on_halves, costs[r], times[r], subject.interpolated(r))
    aim = {"top1": max(path.top1_fit for path in paths.values()) if top1 is None else top1}
    return CascadeReport(
        aim=aim if multiply_adds is None else {"multiply_adds": multiply_adds},
        seed=seed,
        fit=fitted,
        fit_count=len(first),
        measured=_outcome(fitted, hits, answered, costs, own_views, times[None]),
        paths=paths,
        pairs={r: Paired.of(hits, right[r][second]) for r in paths},
    )


def _stacked(rows: Mapping[int, Tensor], resolutions: Iterable[int], places: Tensor) -> Tensor:
    """Return rows of some resolutions and images, (S, N)."""
    return torch.stack([rows[r][places] for r in resolutions])


def _outcome(
    fitted: Fitted, hits: Tensor, answered: Tensor, costs: Mapping[int, int], own_views: float, milliseconds: float
) -> Outcome:
    spent = accumulate(costs[r] for r in fitted.stages)
    shares = {r: _percent(answered == r) for r in fitted.stages}
    mean = sum(cost * share for cost, share in zip(spent, shares.values(), strict=True)) / 100
    interval = wilson_interval(int(hits.sum()), len(hits))
    return Outcome(len(hits), _percent(hits), interval, own_views, mean, milliseconds, shares)


def _run_all(ready: Cascade, feed: _Feed, places: Tensor, resolution: int) -> CascadeOutput:
    """Return what a cascade predicts for images, each of one view at a resolution."""
    with feed.batches(places, [resolution], "cascade") as batches:
        logits, answered = zip(*(ready(views[0]) for views in batches), strict=True)
    return CascadeOutput(torch.cat(logits).cpu(), torch.cat(answered).cpu())


@torch.no_grad()
def _time_all(ready: Cascade, feed: _Feed, places: Tensor, resolutions: Sequence[int]) -> dict[int | None, float]:
    """Return milliseconds per image of every path on its own view, and under None of a cascade on the first view.

    They take turns on each batch, after a turn that does not count; of three turns the median counts.
    """
    sums: dict[int | None, float] = defaultdict(float)
    with feed.batches(places, resolutions, "time") as batches:
        for views in batches:
            runs: dict[int | None, Callable[[], object]] = {None: partial(ready, views[0])}
            runs |= {r: partial(feed.subject.paths[r], view) for r, view in zip(resolutions, views, strict=True)}
            for name, time in measure_latency(runs, rounds=3, warm_up=1, device=feed.subject.device).items():
                sums[name] += time.median_ms
    return {name: milliseconds / len(places) for name, milliseconds in sums.items()}


def _percent(right: Tensor) -> float:
    return 100 * float(right.double().mean())
