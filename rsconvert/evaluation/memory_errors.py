"""Running out of memory: the many errors that mean it, told as one."""

import errno
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rsconvert.errors import TrainingError

__all__ = ["is_memory_error", "plain_memory_errors"]

# In lower case, from torch on the GPU, torch on the CPU, the system, shared memory, torch's loader.
_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate shared memory",
    "dataloader worker (pid",
)
_NUMBERS = (errno.ENOMEM, errno.EMFILE)


def is_memory_error(error: BaseException) -> bool:
    """Tell whether an error means too little memory, or the death of a worker process, which as a rule means it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        return True
    return isinstance(error, RuntimeError | OSError) and any(sign in str(error).lower() for sign in _SIGNS)


@contextmanager
def plain_memory_errors(batch_size: int, workers: int) -> Iterator[None]:
    """Turn such errors into one line.

    Raises:
        TrainingError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_memory_error(error):
            raise
        raise TrainingError(
            f"memory ran out, or a worker process died ({_reason(error)}); a smaller load is needed. Lower batch_size "
            f"(it is {batch_size}) or workers ({workers}); in a script call below if __name__ == '__main__':."
        ) from error


def _reason(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    told = [line for line in lines if any(sign in line.lower() for sign in _SIGNS)]
    return textwrap.shorten((told or lines)[0].rstrip("."), 160, placeholder=" …")
