"""keep_freed_memory: the C library is told, in a process of its own, and what it lacks is no error."""

import ctypes
import subprocess
import sys

import pytest

from rsconvert.training.step.allocator import keep_freed_memory

CODE = """
import resource
from rsconvert.training.step.allocator import keep_freed_memory
import torch

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**22)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
told = keep_freed_memory()
faults()
print(told, first, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    told, before, after = done.stdout.split()
    if told == "True":
        assert int(after) < int(before) / 10


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False
