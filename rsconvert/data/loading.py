"""Labelled images → batches of views, decoded and cut in worker processes.

The randomness of a sample is a function of (seed, epoch, index) alone: a batch is the same whatever the number of
workers, and an epoch can be repeated. A sampler puts the epoch into each key, since workers outlive the epoch.
"""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.util import Finalize
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from rsconvert.data.decoding import EncodedImage
from rsconvert.data.interrupts import STOPPING, blocked_interrupts
from rsconvert.data.pair_views import Grid, TrainingPairs, WholeImages, collate_pairs
from rsconvert.data.pairs import Pairs
from rsconvert.data.places import draw_places
from rsconvert.data.samples import Samples
from rsconvert.data.streams import Stream, StreamViews
from rsconvert.data.views import Augmentation, Size, evaluation_views, training_views
from rsconvert.errors import ConfigError, DataError

__all__ = [
    "EpochSampler",
    "EvaluationViews",
    "TrainingViews",
    "ViewLoader",
    "evaluation_loader",
    "share_of_batches",
    "training_loader",
    "whole_loader",
]

Key = tuple[int, int, int]  # epoch, batch, index
Sample = tuple[list[Tensor], int]
Batch = tuple[list[Any], Any]

_SECONDS_TO_DIE = 2
_BLANK = torch.zeros((3, 8, 8), dtype=torch.uint8)  # on which settings are tried


class EpochSampler(Sampler[Key]):
    """Gives each index of this process once, as (epoch, batch, index); the order is a function of (seed, epoch).

    Of ``world_size`` processes each takes its own, equally many; the few left over differ from epoch to epoch.
    """

    def __init__(self, count: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self._count, self._batch_size = count, batch_size
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self.set_epoch(0, 0)

    def __len__(self) -> int:
        return self._count // self._world_size

    def __iter__(self) -> Iterator[Key]:
        generator = torch.Generator().manual_seed(Random(f"{self._seed}-{self._epoch}").getrandbits(63))
        order = torch.randperm(self._count, generator=generator).tolist()
        mine = list(enumerate(order[self._rank :: self._world_size][: len(self)]))
        return iter([(self._epoch, place // self._batch_size, index) for place, index in mine[self._skip :]])

    def set_epoch(self, epoch: int, skip: int) -> None:
        """Choose the next epoch, and how many of this process's order it leaves out; the length still counts them."""
        self._epoch, self._skip = epoch, skip


class TrainingViews(Dataset[Sample | DataError]):
    """Key (epoch, batch, index) → the sample's S random views (C, r, r), all from one decoding, and its target.

    With ``drawn`` below S a batch has so many of them, by `draw_places`; a view that is not drawn has the shape
    (C, 0, 0). A sample that can't be read is returned as its `DataError`: torch would wrap a raised one in a traceback.
    Errors of the settings are raised at once.
    """

    def __init__(
        self,
        samples: Samples,
        resolutions: Sequence[int],
        *,
        seed: int,
        augmentation: Augmentation | None = None,
        drawn: int | None = None,
        channels: int = 3,
    ) -> None:
        self._not_drawn = torch.empty((channels, 0, 0), dtype=torch.uint8)
        self._samples, self._seed, self._resolutions = samples, seed, tuple(resolutions)
        self._drawn = len(self._resolutions) if drawn is None else drawn
        self._cut = partial(training_views, augmentation=augmentation, channels=channels)
        self._cut(_BLANK, self._resolutions, Random(seed))

    def __getitem__(self, key: Key) -> Sample | DataError:
        epoch, batch, index = key
        rng = Random(f"{self._seed}-{epoch}-{index}")
        return _sample(self._samples.open, index, partial(self.cut, rng=rng, epoch=epoch, batch=batch))

    def cut(self, image: Tensor | EncodedImage, rng: Random, epoch: int, batch: int) -> list[Tensor]:
        """Return the views of an image in a batch of an epoch."""
        places = draw_places(len(self._resolutions), self._drawn, seed=self._seed, epoch=epoch, batch=batch)
        views = self._cut(image, [self._resolutions[place] for place in places], rng)
        cut = dict(zip(places, views, strict=True))
        return [cut.get(place, self._not_drawn) for place in range(len(self._resolutions))]


class EvaluationViews(Dataset[Sample | DataError]):
    """Index → the sample's S central views (C, r, r), all from one decoding, and its target.

    Errors are returned and raised as by `TrainingViews`.
    """

    def __init__(
        self,
        samples: Samples,
        resolutions: Sequence[Size],
        *,
        crop_pct: float | Sequence[float],
        interpolation: str,
        channels: int = 3,
    ) -> None:
        self._samples = samples
        cut = partial(evaluation_views, resolutions=tuple(resolutions), crop_pct=crop_pct, interpolation=interpolation)
        self.cut = partial(cut, channels=channels)
        self.cut(_BLANK)

    def __getitem__(self, index: int) -> Sample | DataError:
        return _sample(self._samples.read, index, self.cut)


class ViewLoader:
    """Iterates over batches ([S views of shape (N, C, r, r), uint8, channels_last], targets (N,), int64).

    In training a view that was not drawn has the shape (N, C, 0, 0). The targets of pairs are masks: in training
    (N, H, W) or, at several grids, (N, K); in evaluation a list of N, and so are views where their sizes differ.

    Raises:
        DataError: while iterating, when a sample can't be read, or a stream to evaluate has lost some.
        RuntimeError: a worker process died; torch may raise it anywhere in the main thread.
    """

    def __init__(
        self,
        views: Dataset[Any],
        order: EpochSampler | list[int] | None,
        *,
        batch_size: int,
        workers: int,
        drop_last: bool = False,
        pin_memory: bool = False,
        seed: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        self._views, self._order = views, order
        self._batches: DataLoader[Any] = DataLoader(
            views,
            batch_size=batch_size,
            sampler=order,
            num_workers=workers,
            collate_fn=collate or _collate,
            drop_last=drop_last,
            pin_memory=pin_memory,
            worker_init_fn=_start_worker,
            persistent_workers=workers > 0,
            # Without one of its own, the loader would draw from torch's global generator at each epoch.
            generator=torch.Generator().manual_seed(seed),
        )
        # As a program ends, Python sends SIGTERM to the workers that are left and waits for them; they ignore it.
        # The priority comes before that of the queues (10), by which they are told to end.
        Finalize(self, _end_workers, args=(self._batches,), exitpriority=100)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        seen = 0
        for batch in self._received():
            if isinstance(batch, DataError):
                # Not the object itself: this frame would hold it, it would hold this frame, and a loader freed with
                # such a cycle waits five seconds for its workers.
                raise DataError(str(batch))
            views, targets = batch
            seen += len(targets)
            # Three colours side by side in memory, named as the network's input expects them.
            yield [_colours_first(view) for view in views], targets
        if isinstance(self._views, StreamViews):
            self._views.check_count(seen)

    def _received(self) -> Iterator[Any]:
        try:
            with blocked_interrupts():  # a worker that is born with Ctrl-C would die of it with a traceback
                started = iter(self._batches)
            yield from started
        except (ConnectionError, EOFError) as error:
            # A worker was killed while it handed over a batch. Its sockets close before the process has ended; after
            # that torch itself raises, out of a signal handler here.
            time.sleep(_SECONDS_TO_DIE)
            raise RuntimeError("DataLoader worker (pid unknown) exited unexpectedly") from error

    def close(self) -> None:
        """End the worker processes; another iteration starts new ones."""
        _end_workers(self._batches)

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Choose the order and the randomness of the next iteration; evaluation has neither.

        The iteration leaves out the first ``skip`` images of this process, whole batches as a rule: what follows is
        what an uninterrupted epoch would have given; but a stream, whose order depends on what its workers read before,
        may give others. The loader's length remains that of a full epoch.
        """
        for part in (self._views, self._order):
            if isinstance(part, (StreamViews, EpochSampler)):
                part.set_epoch(epoch, skip)


def _end_workers(batches: DataLoader[Any]) -> None:
    iterator, batches._iterator = batches._iterator, None
    # Freed, it would end them too; but the traceback of an error may hold it.
    end = getattr(iterator, "_shutdown_workers", None)
    if end is None:
        return
    with suppress(RuntimeError):  # as one ends, torch's handler of signals says that another died before
        end()
    for worker in getattr(iterator, "_workers", ()):  # one that was not told to end; it ignores SIGTERM
        if worker.is_alive():
            worker.kill()
            worker.join()


def training_loader(
    samples: Samples,
    resolutions: Sequence[int],
    *,
    batch_size: int,
    seed: int,
    workers: int,
    augmentation: Augmentation | None = None,
    drawn: int | None = None,
    grids: Sequence[Grid] = (),
    channels: int = 3,
    drop_last: bool = True,
    pin_memory: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> ViewLoader:
    """Return shuffled batches of random views; call ``set_epoch`` before each epoch.

    A resolution may be given twice (S views of one size). ``batch_size`` is per process. ``drawn``, from 3 to S, is how
    many of the S views a batch has, see `draw_places`; by default all. ``grids`` are those of the masks of pairs,
    ``channels`` those of the views: 3, or 1 in grey.

    Raises:
        DataError: there are fewer images than one batch holds.
        ResolutionError, ConfigError: a setting is unusable.
    """
    _check_sizes(batch_size, workers)
    sampler = EpochSampler(len(samples), batch_size, seed=seed, rank=rank, world_size=world_size)
    loader = partial(
        ViewLoader, batch_size=batch_size, workers=workers, drop_last=drop_last, pin_memory=pin_memory, seed=seed
    )
    if isinstance(samples, Pairs):
        pairs = TrainingPairs(
            samples, resolutions, grids, seed=seed, augmentation=augmentation, drawn=drawn, channels=channels
        )
        _check_full(sampler, batch_size, drop_last, world_size)
        return loader(pairs, sampler)
    views = TrainingViews(samples, resolutions, seed=seed, augmentation=augmentation, drawn=drawn, channels=channels)
    if isinstance(samples, Stream):
        stream = StreamViews(samples, views.cut, batch_size, workers, rank, world_size, seed=seed, training=True)
        return loader(stream, None)
    _check_full(sampler, batch_size, drop_last, world_size)
    return loader(views, sampler)


def _check_full(sampler: EpochSampler, batch_size: int, drop_last: bool, world_size: int) -> None:
    """Raise a DataError unless there are images for one batch."""
    if len(sampler) < (needed := batch_size if drop_last else 1):
        images = f"{len(sampler)} images{' per process' if world_size > 1 else ''}"
        raise DataError(
            f"the training set has {images}, fewer than one batch of {needed}; every batch must be full. Choose "
            f"a batch size of at most {len(sampler)}, or add images."
        )


def evaluation_loader(
    samples: Samples,
    resolutions: Sequence[Size],
    *,
    batch_size: int,
    workers: int,
    crop_pct: float | Sequence[float] = 0.875,
    interpolation: str = "bilinear",
    channels: int = 3,
    pin_memory: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> ViewLoader:
    """Return batches of central views in the order of ``samples``, the last one as small as it comes.

    Of ``world_size`` processes each takes its `share_of_batches`: together they see each sample once.

    Raises:
        ResolutionError, ConfigError: a setting is unusable.
    """
    _check_sizes(batch_size, workers)
    views = EvaluationViews(samples, resolutions, crop_pct=crop_pct, interpolation=interpolation, channels=channels)
    loader = partial(ViewLoader, batch_size=batch_size, workers=workers, pin_memory=pin_memory)
    if isinstance(samples, Stream):
        return loader(StreamViews(samples, views.cut, batch_size, workers, rank, world_size), None)
    return loader(views, share_of_batches(len(samples), batch_size, rank=rank, world_size=world_size))


def whole_loader(
    samples: Samples,
    sizes: Sequence[Size],
    *,
    batch_size: int,
    workers: int,
    resize: str,
    interpolation: str = "bilinear",
    fill: Sequence[float] = (0.0, 0.0, 0.0),
    pin_memory: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> ViewLoader:
    """Return batches of whole images, see `whole_views`, with their masks or targets, shared as by `evaluation_loader`.

    Raises:
        ResolutionError, ConfigError: a setting is unusable.
    """
    _check_sizes(batch_size, workers)
    views = WholeImages(samples, sizes, resize=resize, interpolation=interpolation, fill=fill)
    share = share_of_batches(len(samples), batch_size, rank=rank, world_size=world_size)
    return ViewLoader(
        views, share, batch_size=batch_size, workers=workers, pin_memory=pin_memory, collate=collate_pairs
    )


def share_of_batches(count: int, batch_size: int, *, rank: int, world_size: int) -> list[int]:
    """Return the indices that a process reads: every ``world_size``-th batch of those of one process, from its rank on.

    So each batch is as one process would run it, and each image is read once; a share may be empty.
    """
    starts = range(rank * batch_size, count, world_size * batch_size)
    return [index for start in starts for index in range(start, min(start + batch_size, count))]


def _check_sizes(batch_size: int, workers: int) -> None:
    if not 1 <= batch_size < 2**31 or workers < 0:
        raise ConfigError(f"batch_size is {batch_size}, workers {workers}; 1 to 2**31 - 1 and at least 0 are accepted.")


def _sample(read: Callable[[int], tuple[Any, int]], index: int, cut: Callable[..., list[Tensor]]) -> Sample | DataError:
    try:
        image, target = read(index)
        return cut(image), target
    except DataError as error:
        return DataError(str(error))  # without its cause, which need not travel between processes


def _collate(samples: list[Any]) -> Any:
    """Return ([views of shape (N, r, r, C)], targets), or the first error."""
    if errors := [sample for sample in samples if isinstance(sample, DataError)]:
        return errors[0]
    # Seen as (r, r, C) a view is dense: torch copies it at once, in a worker straight into shared memory.
    return default_collate([([view.permute(1, 2, 0) for view in views], target) for views, target in samples])


def _colours_first(view: Any) -> Any:
    return [one.permute(2, 0, 1) for one in view] if isinstance(view, list) else view.permute(0, 3, 1, 2)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    for number in STOPPING:  # they are for the main process, which ends its workers when its step is over
        signal.signal(number, signal.SIG_IGN)
