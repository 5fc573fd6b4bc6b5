"""Memory: what a forward holds at its most beyond weights and input, and the many errors that mean too little of it."""

import errno
import multiprocessing
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakSet, finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rsconvert.errors import TrainingError

__all__ = ["is_memory_error", "peak_memory", "plain_memory_errors"]

# From torch on the GPU, torch on the CPU, the system, shared memory, torch's loader.
_SIGNS = r"(?i)out of memory|can(no|')t allocate memory|unable to allocate shared memory|dataloader worker \(pid"


def is_memory_error(error: BaseException) -> bool:
    """Return whether an error means too little memory, or the death of a worker process, which as a rule means it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EMFILE):
        return True
    return isinstance(error, RuntimeError | OSError) and re.search(_SIGNS, str(error)) is not None


@contextmanager
def plain_memory_errors(batch_size: int, workers: int) -> Iterator[None]:
    """Turn such errors, and the death of a worker process, into a TrainingError of one line with the cause."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_memory_error(error):
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        line = next((line for line in lines if re.search(_SIGNS, line)), lines[0]).rstrip(".")
        if (cause := _death(line)) is not None:
            raise TrainingError(f"{cause} ({textwrap.shorten(line, 160, placeholder=' …')}).") from error
        raise TrainingError(
            f"memory ran out ({textwrap.shorten(line, 160, placeholder=' …')}); a smaller load is needed. Lower "
            f"batch_size (it is {batch_size}) or workers ({workers})."
        ) from error


def _death(line: str) -> str | None:
    """Return in words why a worker process died, with what to do; None if the line of torch is about something else."""
    if not re.search(r"(?i)dataloader worker \(pid", line):
        return None
    if (found := re.search(r"killed by signal: ([\w ]+)", line)) is None:
        return _death_at_start()
    if found[1].startswith("Killed"):
        return (
            "a worker process died: it was killed, by the system as a rule, because memory ran out. Lower batch_size "
            "or workers, or give the job more memory"
        )
    if found[1].startswith(("Bus", "Segmentation")):
        return (
            f"a worker process died of {found[1]}, as when shared memory (/dev/shm) is full. Lower workers, or make it "
            "larger"
        )
    return f"a worker process died of the signal {found[1]}, which someone sent to it; what was written is intact"


def _death_at_start() -> str:
    """Return why a worker ended by itself: as a rule it could not import the program."""
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_start_method()
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if method != "fork" and (main is None or main.startswith("<")):
        return (
            f"a worker process died as it started: by {method} it imports the program, which came from standard input "
            "or a prompt. Put it into a file, or set workers to 0"
        )
    if method != "fork":
        return (
            f"a worker process died as it started: by {method} it imports the program, whose work must stand below "
            "if __name__ == '__main__':. Put it there, or set workers to 0"
        )
    return "a worker process died: it ended by itself, as when memory runs out. Lower batch_size or workers"


def peak_memory(run: Callable[[], object], device: torch.device, given: Iterable[Tensor]) -> int:
    """Return the bytes that a run holds at its most beyond what was there before it, its result included.

    On a GPU they are those of CUDA's allocator, the workspaces of kernels among them. Elsewhere they are those of the
    tensors that are alive; what a kernel allocates for itself is not counted, so a compiled model, which is one kernel
    to torch, can't be measured there.

    Args:
        given: the tensors that are there before: weights, buffers, inputs.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    counter = _LiveTensors(given)
    # In inference mode torch shows a composite function as one, without the tensors inside.
    with torch.inference_mode(False), torch.no_grad(), counter:
        run()
    return counter.peak


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it so
    """Counts the bytes of the memories that were made within it and are alive; views and in-place results have none."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: WeakSet[Any] = WeakSet(tensor.untyped_storage() for tensor in given)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            finalize(storage, partial(self._free, storage.nbytes()))

    def _free(self, size: int) -> None:
        self.live -= size
