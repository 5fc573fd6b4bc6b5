"""Labelled images → batches of views, decoded and cut in worker processes.

The randomness of a sample is a function of (seed, epoch, index) alone: a batch is the same whatever the number of
workers, and an epoch can be had again. A sampler puts the epoch into each key, since workers outlive the epoch.
"""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from rsconvert.data.interrupts import blocked_interrupts
from rsconvert.data.samples import Samples
from rsconvert.data.sampling import EpochSampler, Key, share_of_batches
from rsconvert.data.streams import Stream, StreamViews
from rsconvert.data.views import Crop, Flip, Size, evaluation_views, training_views
from rsconvert.errors import ConfigError, DataError

__all__ = [
    "Batch",
    "EvaluationViews",
    "TrainingViews",
    "ViewLoader",
    "evaluation_loader",
    "training_loader",
]

Sample = tuple[list[Tensor], int]
Batch = tuple[list[Tensor], Tensor]

_SECONDS_TO_DIE = 2


class TrainingViews(Dataset[Sample | DataError]):
    """Key (epoch, index) → the sample's S random views (3, r, r), all from one decoding, and its target.

    A sample that can't be read is returned as its `DataError`: torch would wrap a raised one in a traceback.

    Raises:
        ResolutionError, ConfigError: as `training_views`, at once rather than in a worker.
    """

    def __init__(self, samples: Samples, resolutions: Sequence[int], *, seed: int, **augmentation: Any) -> None:
        self._samples, self._seed = samples, seed
        self.cut: Callable[..., list[Tensor]] = partial(training_views, resolutions=tuple(resolutions), **augmentation)
        self.cut(image=_blank(), rng=Random(seed))

    def __getitem__(self, key: Key) -> Sample | DataError:
        epoch, index = key
        cut = partial(self.cut, rng=Random(f"{self._seed}-{epoch}-{index}"))
        return _sample(self._samples.open, index, cut)


class EvaluationViews(Dataset[Sample | DataError]):
    """Index → the sample's S central views (3, r, r), all from one decoding, and its target.

    Errors are returned and raised as by `TrainingViews`.
    """

    def __init__(
        self,
        samples: Samples,
        resolutions: Sequence[Size],
        *,
        crop_pct: float | Sequence[float],
        interpolation: str,
    ) -> None:
        self._samples = samples
        self.cut = partial(
            evaluation_views, resolutions=tuple(resolutions), crop_pct=crop_pct, interpolation=interpolation
        )
        self.cut(_blank())

    def __getitem__(self, index: int) -> Sample | DataError:
        return _sample(self._samples.read, index, self.cut)


class ViewLoader:
    """Iterates over batches ([S views of shape (N, 3, r, r), uint8, channels_last], targets (N,), int64).

    Raises:
        DataError: while iterating, when a sample can't be read, or a stream to evaluate has lost some.
        RuntimeError: a worker process died; torch may raise it anywhere in the main thread.
    """

    def __init__(self, batches: DataLoader[Any], sampler: EpochSampler | StreamViews | None = None) -> None:
        self._batches, self._sampler = batches, sampler

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
            yield [view.permute(0, 3, 1, 2) for view in views], targets
        if isinstance(self._sampler, StreamViews):
            self._sampler.check_count(seen)

    def _received(self) -> Iterator[Any]:
        try:
            yield from self._started()
        except (ConnectionError, EOFError) as error:
            # A worker was killed while it handed over a batch. Its sockets close before the process has ended; when it
            # has, torch says so itself, by raising out of a signal handler here.
            time.sleep(_SECONDS_TO_DIE)
            raise RuntimeError("DataLoader worker (pid unknown) exited unexpectedly") from error

    def _started(self) -> Iterator[Any]:
        with blocked_interrupts():  # a worker that is born with Ctrl-C would die of it with a traceback
            return iter(self._batches)

    def close(self) -> None:
        """End the worker processes; another iteration starts new ones."""
        iterator, self._batches._iterator = self._batches._iterator, None
        # Freed, it would end them too; but the traceback of an error may hold it.
        end = getattr(iterator, "_shutdown_workers", None)
        if end is not None:
            end()

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Choose the order and the randomness of the next iteration; evaluation has neither.

        The iteration leaves out the first ``skip`` images of this process, whole batches as a rule: what follows is
        what an uninterrupted epoch would have given; but a stream, whose order hangs on what its workers read before,
        may give others. The loader's length remains that of a full epoch.
        """
        if self._sampler is not None:
            self._sampler.epoch, self._sampler.skip = epoch, skip


def training_loader(
    samples: Samples,
    resolutions: Sequence[int],
    *,
    batch_size: int,
    seed: int,
    workers: int,
    crop_area: tuple[float, float] = (0.08, 1.0),
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3),
    crop: Crop = "shared",
    flip: Flip = "shared",
    interpolation: str = "bilinear",
    color_jitter: float | None = None,
    rand_augment: str | None = None,
    drop_last: bool = True,
    pin_memory: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> ViewLoader:
    """Return shuffled batches of random views; call ``set_epoch`` before each epoch.

    A resolution may be given twice (S views of one size). ``batch_size`` is per process.

    Raises:
        DataError: there are fewer images than one batch holds.
        ResolutionError, ConfigError: a setting is unusable.
    """
    dataset = TrainingViews(
        samples,
        resolutions,
        seed=seed,
        crop_area=crop_area,
        crop_aspect=crop_aspect,
        crop=crop,
        flip=flip,
        interpolation=interpolation,
        color_jitter=color_jitter,
        rand_augment=rand_augment,
    )
    if isinstance(samples, Stream):
        stream = partial(StreamViews, samples, dataset.cut, training=True, seed=seed, rank=rank, world_size=world_size)
        return _stream_loader(stream, batch_size, workers, drop_last=drop_last, pin_memory=pin_memory, seed=seed)
    sampler = EpochSampler(len(samples), seed=seed, rank=rank, world_size=world_size)
    _check_count(len(sampler), batch_size if drop_last else 1, world_size)
    batches = _batches(dataset, sampler, batch_size, workers, drop_last=drop_last, pin_memory=pin_memory)
    return ViewLoader(batches, sampler)


def evaluation_loader(
    samples: Samples,
    resolutions: Sequence[Size],
    *,
    batch_size: int,
    workers: int,
    crop_pct: float | Sequence[float] = 0.875,
    interpolation: str = "bilinear",
    pin_memory: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> ViewLoader:
    """Return batches of central views in the order of ``samples``, the last one as small as it comes.

    Of ``world_size`` processes each takes its `share_of_batches`: together they see each sample once.

    Raises:
        ResolutionError, ConfigError: a setting is unusable.
    """
    dataset = EvaluationViews(samples, resolutions, crop_pct=crop_pct, interpolation=interpolation)
    if isinstance(samples, Stream):
        stream = partial(StreamViews, samples, dataset.cut, rank=rank, world_size=world_size)
        return _stream_loader(stream, batch_size, workers, drop_last=False, pin_memory=pin_memory)
    _check_sizes(batch_size, workers)
    mine = share_of_batches(len(samples), batch_size, rank=rank, world_size=world_size)
    return ViewLoader(_batches(dataset, mine, batch_size, workers, drop_last=False, pin_memory=pin_memory))


def _stream_loader(stream: Callable[..., StreamViews], batch_size: int, workers: int, **options: Any) -> ViewLoader:
    _check_sizes(batch_size, workers)
    views = stream(batch_size=batch_size, workers=workers)
    return ViewLoader(_batches(views, None, batch_size, workers, **options), views)


def _check_count(images: int, needed: int, world_size: int) -> None:
    if images < needed:
        share = " per process" if world_size > 1 else ""
        raise DataError(
            f"the training set has {images} images{share}, fewer than one batch of {needed}; every batch must be full. "
            f"Choose a batch size of at most {images}, or add images."
        )


def _check_sizes(batch_size: int, workers: int) -> None:
    if not 1 <= batch_size < 2**31 or workers < 0:
        raise ConfigError(
            f"batch_size is {batch_size}, workers {workers}; 1 to 2**31 - 1 and at least 0 are accepted. Change them."
        )


def _batches(
    dataset: Dataset[Any],
    sampler: Any,
    batch_size: int,
    workers: int,
    *,
    drop_last: bool,
    pin_memory: bool,
    seed: int = 0,
) -> DataLoader[Any]:
    _check_sizes(batch_size, workers)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        drop_last=drop_last,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        # Without one of its own, the loader would draw from torch's global generator at each epoch.
        generator=torch.Generator().manual_seed(seed),
    )


def _sample(
    read: Callable[[int], tuple[Any, int]], index: int, cut: Callable[[Any], list[Tensor]]
) -> Sample | DataError:
    try:
        image, target = read(index)
        return cut(image), target
    except DataError as error:
        return DataError(str(error))  # without its cause, which need not travel between processes


def _collate(samples: list[Any]) -> Any:
    """Return ([views of shape (N, r, r, 3)], targets), or the first error."""
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
    # Seen as (r, r, 3) a view is dense: torch copies it at once, in a worker straight into shared memory.
    return default_collate([([view.permute(1, 2, 0) for view in views], target) for views, target in samples])


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends its workers


def _blank() -> Tensor:
    """An image on which a setting can be tried."""
    return torch.zeros((3, 8, 8), dtype=torch.uint8)
