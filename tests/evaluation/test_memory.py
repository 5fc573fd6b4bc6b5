"""Running out of memory: what counts as it, and the line it becomes."""

import errno

import pytest
import torch

from rsconvert.errors import TrainingError
from rsconvert.evaluation.memory import is_memory_error, plain_memory_errors

OURS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory\nCompile with"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"),
    RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed."),
    RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nRuntimeError: can't allocate memory: you tried"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError(errno.EMFILE, "Too many open files"),
]
OTHERS = [
    RuntimeError("Caught ValueError in DataLoader worker process 0.\nTraceback"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ValueError("out of memory"),
    OSError(errno.ENOSPC, "No space left on device"),
]


@pytest.mark.parametrize("error", OURS, ids=str)
def test_a_lack_of_memory_is_one_line_with_its_remedy(error: Exception) -> None:
    assert is_memory_error(error)
    with (
        pytest.raises(TrainingError, match=r"Lower batch_size \(it is 64\) or workers \(2\)") as caught,
        plain_memory_errors(64, 2),
    ):
        raise error
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_the_telling_line_is_shown() -> None:
    with pytest.raises(TrainingError, match="RuntimeError: can't allocate"), plain_memory_errors(64, 2):
        raise OURS[6]


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_another_error_passes(error: Exception) -> None:
    assert not is_memory_error(error)
    with pytest.raises(type(error)) as caught, plain_memory_errors(64, 2):
        raise error
    assert caught.value is error
