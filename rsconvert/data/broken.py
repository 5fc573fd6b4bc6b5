"""Samples without the images that can't be read, as many as the caller lets pass."""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from torch.utils.data import Dataset

from rsconvert.data.decoding import EncodedImage, UnreadableImageError
from rsconvert.data.loading import ViewLoader
from rsconvert.data.pairs import Pairs
from rsconvert.data.samples import Samples
from rsconvert.data.streams import Stream
from rsconvert.errors import ConfigError, DataError
from rsconvert.text import printable

__all__ = ["without_broken"]

_BATCH = 64


def without_broken(
    samples: Sequence[Samples],
    skip_broken: int,
    *,
    workers: int = 0,
    quiet: bool = False,
    check: Callable[[], None] = lambda: None,
) -> list[Samples]:
    """Return samples without the images that can't be read or decoded, of which up to ``skip_broken`` pass in all.

    Each image, and each mask, is decoded once for it, before any is used: so counts, order and randomness are those of
    a folder without the broken ones. A line of the log names each. With 0 nothing is read.

    Args:
        workers: processes that read, of more than one batch.
        quiet: log nothing.
        check: is called after each batch, and may raise.
    Raises:
        ConfigError: the number is negative; samples can only be read in order.
        DataError: more images can't be read, or none can; a target is no class.
    """
    if skip_broken < 0:
        raise ConfigError(f"skip_broken is {skip_broken}; a number of images of 0 or more is accepted.")
    if not skip_broken:
        return [*samples]
    if streams := [each.label for each in samples if isinstance(each, Stream)]:
        raise ConfigError(
            f"skip_broken is {skip_broken}, and {streams[0]} can only be read in order, by a reader that skips itself. "
            "Leave it out."
        )
    found, left = [], skip_broken
    for each in samples:
        problems = _problems(each, left, skip_broken, workers, check)
        left -= len(problems)
        for problem in () if quiet else problems.values():
            logging.getLogger(__name__).warning("note: skipped: %s", printable(problem))
        found.append(each.subset([i for i in range(len(each)) if i not in problems]) if problems else each)
        if len(each) and not len(found[-1]):
            raise DataError(f"none of the {len(each)} images of {each.label} can be read. Check the files.")
    return found


def _problems(samples: Samples, left: int, skip_broken: int, workers: int, check: Callable[[], None]) -> dict[int, str]:
    """Return why each broken sample can't be read; raise at one more than are left to pass."""
    problems: dict[int, str] = {}
    workers = workers if len(samples) > _BATCH else 0
    reader = ViewLoader(
        _Reading(samples), list(range(len(samples))), batch_size=_BATCH, workers=workers, collate=_collected
    )
    with closing(reader):
        for _, batch in reader:
            for index, problem in batch:
                if problem is not None:
                    problems[index] = problem
                if len(problems) > left:
                    raise DataError(
                        f"{problem} {skip_broken} before it were skipped, as many as --skip-broken (skip_broken) lets "
                        "pass; or raise that."
                    )
            check()
    return problems


class _Reading(Dataset[tuple[int, str | None] | DataError]):
    """Index → the index, and why the sample can't be read, None if it can; or what else is wrong with it."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __getitem__(self, index: int) -> tuple[int, str | None] | DataError:
        try:
            image = self._samples.open_pair(index)[0] if isinstance(self._samples, Pairs) else self._opened(index)
            if isinstance(image, EncodedImage):
                image.decode()
        except UnreadableImageError as error:
            return index, str(error)
        except DataError as error:
            return DataError(str(error))  # without its cause, which need not travel between processes
        return index, None

    def _opened(self, index: int) -> Any:
        return self._samples.open(index)[0]


def _collected(samples: list[Any]) -> Any:
    return next((sample for sample in samples if isinstance(sample, DataError)), ([], samples))
