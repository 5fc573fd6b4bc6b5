"""What counts as running out of memory, the line it becomes, also when a worker dies; peaks against sums by hand."""

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from rsconvert.data import Samples
from rsconvert.errors import TrainingError
from rsconvert.evaluation import evaluate
from rsconvert.evaluation.memory import is_memory_error, peak_memory, plain_memory_errors
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import make_switchable
from rsconvert.training import finetune

OURS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory\nCompile with"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to"),
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


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("(pid(s) 12, 13) exited unexpectedly", "ended by itself, as when memory runs out"),
        ("(pid 12) is killed by signal: Killed.", "it was killed, .* because memory ran out"),
        ("(pid 12) is killed by signal: Bus error.", "Bus error, as when shared memory"),
        ("(pid 12) is killed by signal: Terminated.", "of the signal Terminated, which someone sent"),
        ("(pid 12) is killed by signal: Hangup.", "of the signal Hangup, which someone sent"),
    ],
)
def test_the_death_of_a_worker_has_its_cause(monkeypatch: pytest.MonkeyPatch, line: str, words: str) -> None:
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda **_: "fork")
    error = RuntimeError(f"DataLoader worker {line}")
    assert is_memory_error(error)
    with pytest.raises(TrainingError, match=f"^a worker process died.*{words}") as caught, plain_memory_errors(64, 2):
        raise error
    assert "\n" not in str(caught.value)
    assert "batch_size" in str(caught.value) or "memory ran out" not in str(caught.value)


@pytest.mark.parametrize(
    ("main", "words"), [("<stdin>", "from standard input"), ("run.py", "if __name__ == '__main__'")]
)
def test_a_worker_that_can_not_import_the_program_says_so(
    monkeypatch: pytest.MonkeyPatch, main: str, words: str
) -> None:
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda **_: "forkserver")
    monkeypatch.setattr("__main__.__file__", main, raising=False)
    with pytest.raises(TrainingError, match=f"died as it started: by forkserver .*{words}"), plain_memory_errors(64, 2):
        raise RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly")


def test_the_telling_line_is_shown() -> None:
    with pytest.raises(TrainingError, match="RuntimeError: can't allocate"), plain_memory_errors(64, 2):
        raise OURS[4]


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_another_error_passes(error: Exception) -> None:
    assert not is_memory_error(error)
    with pytest.raises(type(error)) as caught, plain_memory_errors(64, 2):
        raise error
    assert caught.value is error


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(x)).relu().mean((2, 3)))


class Photos:
    """Grey photos; the worker process that reads the one at ``deadly`` dies of a signal."""

    def __init__(self, count: int, deadly: int | None = None, number: signal.Signals = signal.SIGKILL) -> None:
        self.count, self.deadly, self.number = count, deadly, number

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index == self.deadly and get_worker_info() is not None:
            os.kill(os.getpid(), self.number)
        return Image.new("RGB", (20, 20), (index, index, index)), index % 2


def samples(*arguments: Any) -> Samples:
    return Samples(Photos(*arguments), "photos", ("a", "b"))


# torch raises from its signal handler, wherever the main process is: a file that was just being opened stays unclosed.
raises_anywhere = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def dies(work: Callable[[], object]) -> None:
    """Check that the work ends in one line, and leaves no process behind."""
    before = set(multiprocessing.active_children())
    with pytest.raises(TrainingError, match=r"a worker process died.*workers") as caught:
        work()
    assert "\n" not in str(caught.value)
    assert set(multiprocessing.active_children()) <= before


@raises_anywhere
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_in_an_evaluation_is_one_line(number: signal.Signals) -> None:
    net = make_switchable(Tiny(), (16, 12))
    dies(partial(evaluate, net, samples(40, 33, number), batch_size=2, workers=2))


@raises_anywhere
@pytest.mark.parametrize(("train", "val"), [((40, 7), (4,)), ((40,), (12, 9))], ids=["train", "val"])
def test_a_worker_that_dies_in_training_is_one_line(train: tuple[int, ...], val: tuple[int, ...]) -> None:
    net = make_switchable(Tiny(), (16, 12))
    config = FinetuneConfig(epochs=1, batch_size=2, workers=2, device="cpu")
    dies(partial(finetune, net, (samples(*train), samples(*val)), config=config))


@raises_anywhere
def test_a_worker_that_is_killed_between_two_batches_is_one_line() -> None:
    """As the system does it when memory runs out: the worker is idle, the main process is anywhere."""

    before = set(multiprocessing.active_children())

    def kill(_: object) -> None:
        worker = next(iter(set(multiprocessing.active_children()) - before))
        assert worker.pid
        os.kill(worker.pid, signal.SIGKILL)

    net = make_switchable(Tiny(), (16, 12))
    config = FinetuneConfig(epochs=2, batch_size=2, workers=2, device="cpu")
    dies(partial(finetune, net, (samples(40), samples(4)), config=config, on_epoch=kill))


CPU = torch.device("cpu")


def measured(model: nn.Module, x: Tensor) -> int:
    with torch.inference_mode():
        return peak_memory(lambda: model(x), CPU, [*model.parameters(), *model.buffers(), x])


def test_two_neighbours_are_alive_at_once() -> None:
    convolution = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    x = torch.rand(2, 3, 16, 16)
    kept = 2 * 8 * 16 * 16 * 4
    assert measured(convolution, x) == kept
    assert measured(nn.Sequential(convolution, nn.ReLU()), x) == 2 * kept
    # What came before the neighbours is free again.
    assert measured(nn.Sequential(convolution, nn.ReLU(), nn.Sigmoid(), nn.Tanh()), x) == 2 * kept


def test_views_and_work_in_place_take_nothing() -> None:
    x = torch.rand(1, 3, 8, 8)
    assert measured(nn.Flatten(), x) == 0
    assert measured(nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(inplace=True), nn.Flatten()), x) == 2 * 64 * 4
    assert measured(nn.Dropout(), torch.ones(4)) == 4 * 4 * 2  # in train mode: the mask beside the result


class Branch(nn.Module):
    """A residual block: its input waits while the branch runs."""

    def forward(self, x: Tensor) -> Tensor:
        first = x + 1
        second = (first * 2).half()
        return first + second


def test_what_waits_is_counted_and_the_type_tells() -> None:
    # first (4 bytes a value) and its double, then first, the half and the sum of both.
    assert measured(Branch(), torch.ones(100)) == 400 + 400 + 200


def test_a_gpu_s_allocator_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name, value in (("synchronize", None), ("reset_peak_memory_stats", None)):
        monkeypatch.setattr(torch.cuda, name, lambda device, name=name, value=value: calls.append(name))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1700)
    assert peak_memory(lambda: calls.append("run"), torch.device("cuda"), []) == 700
    assert calls == ["synchronize", "reset_peak_memory_stats", "run", "synchronize"]
