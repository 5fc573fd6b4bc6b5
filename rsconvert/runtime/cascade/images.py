"""A cascade on labelled images as a server would run it, and its time beside that of every single path."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from rsconvert.data import Samples, normalize
from rsconvert.evaluation import autocast, validation_loader
from rsconvert.runtime.cascade.cascade import Cascade, CascadeOutput
from rsconvert.surgery import SwitchableModel, eval_mode

__all__ = ["Feed", "run_all", "time_all"]

_PASSES = 3


@dataclass(frozen=True)
class Feed:
    """Images for a network, as it wants them, in batches.

    Attributes:
        amp: as of ``choose_precision``.
        check: is called after each batch, and may raise.
    """

    net: SwitchableModel
    samples: Samples
    batch_size: int
    workers: int
    amp: torch.dtype
    progress: bool
    check: Callable[[], None]

    def part(self, places: Tensor) -> "Feed":
        """Return the feed of some of the images."""
        return replace(self, samples=self.samples.subset(places.tolist()))

    @contextmanager
    def batches(self, resolutions: Sequence[int], words: str) -> Iterator[Iterator[list[Tensor]]]:
        """Give batches of normalized views, (N, 3, r, r) for each resolution; the network is in eval mode meanwhile."""
        options = {"batch_size": self.batch_size, "workers": self.workers}
        trained = [self.net.at(r) for r in self.net.resolutions]
        with eval_mode(trained), closing(validation_loader(self.net, self.samples, resolutions, **options)) as loader:
            shown = tqdm(loader, desc=words, unit="batch", disable=not self.progress, leave=False)
            yield (self._prepared(views) for views, _ in shown)

    def _prepared(self, views: Sequence[Tensor]) -> list[Tensor]:
        self.check()
        like = next(p for p in self.net.parameters() if p.is_floating_point())
        preprocessing = self.net.source.preprocessing
        return [normalize(view.to(like.device), preprocessing, dtype=like.dtype) for view in views]

    def autocast(self) -> torch.autocast:
        """Return the precision to compute in."""
        return autocast(self.net.alpha.device, self.amp)


def run_all(ready: Cascade, feed: Feed, resolution: int) -> CascadeOutput:
    """Return what a cascade says of all images, each of one view at a resolution."""
    parts = []
    with feed.batches([resolution], "cascade") as batches, feed.autocast():
        parts = [ready(views[0]) for views in batches]
    logits, answered = zip(*parts, strict=True)
    return CascadeOutput(torch.cat(logits).cpu(), torch.cat(answered).cpu())


@torch.no_grad()
def time_all(ready: Cascade, feed: Feed, resolutions: Sequence[int]) -> dict[int | None, float]:
    """Return milliseconds per image of every path on its own view, and under None of a cascade on the first view.

    They take turns on each batch, after a turn that does not count; of three turns the median counts.
    """
    paths = {r: feed.net.at(r) for r in resolutions}
    sums: dict[int | None, float] = defaultdict(float)
    count = 0
    with feed.batches(resolutions, "time") as batches, feed.autocast():
        for views in batches:
            count += len(views[0])
            runs: dict[int | None, Callable[[], object]] = {None: lambda views=views: ready(views[0])}  # type: ignore[misc]
            for view, (r, path) in zip(views, paths.items(), strict=True):
                runs[r] = lambda view=view, path=path: path(view)  # type: ignore[misc]
            for name, seconds in _medians(runs, views[0].device).items():
                sums[name] += seconds
    return {name: 1000 * seconds / count for name, seconds in sums.items()}


def _medians(runs: Mapping[int | None, Callable[[], object]], device: torch.device) -> dict[int | None, float]:
    seconds: dict[int | None, list[float]] = {name: [] for name in runs}
    for turn in range(_PASSES + 1):
        for name, run in runs.items():
            _wait(device)
            start = time.perf_counter()
            run()
            _wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
