"""What all tests share. Small models run fastest on one thread; more only get into each other's way."""

import gc
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rsconvert.evaluation import Benchmark, Cost, Switching, machine_key
from rsconvert.surgery import SwitchableModel, make_switchable

torch.set_num_threads(1)
# What a shell starts in the background is deaf to Ctrl-C, which some tests press.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = ("test_style.py", "test_faults.py", "test_distributed.py", "test_program.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests start first, so that no process is left with one when the others have nothing more to do."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """What the imports made stays: the collector need not look at it again, and looks less often at the rest."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(autouse=True)
def _hub_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the hub can be reached is asked before each download; no test has a network."""
    monkeypatch.setattr("rsconvert.models.builders.get_hf_file_metadata", lambda *_, **__: None)


class Tiny(nn.Module):
    """Two convolutions with a BatchNorm each, a dropout and a classifier."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.bn1 = norm(8)
        self.conv2 = nn.Conv2d(8, 6, 3, padding=1)
        self.bn2 = norm(6)
        self.drop = nn.Dropout(0.0)
        self.fc = nn.Linear(6, classes)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        return self.bn2(self.conv2(x)).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.forward_features(x).mean((2, 3))))


class Tinier(nn.Module):
    """The same without padding and methods, for training: 6 channels, three classes."""

    def __init__(self, classes: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, bias=True), nn.BatchNorm2d(6)
        self.dropout, self.fc = nn.Dropout(dropout), nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        return self.fc(self.dropout(self.bn2(self.conv2(x)).relu().mean((2, 3))))


@pytest.fixture
def full_disk() -> Callable[[], AbstractContextManager[None]]:
    """Within it the system itself refuses to let a file grow beyond 2,000 bytes."""

    @contextmanager
    def limited() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def tiny() -> type[Tiny]:
    return Tiny


@pytest.fixture
def image() -> Callable[..., Tensor]:
    def make(resolution: int, width: int | None = None, batch: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(resolution)
        return torch.randn(batch, 3, resolution, width or resolution, generator=generator)

    return make


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., "subprocess.Popen[str]"]:
    """Starts Python words in two processes."""
    root = Path(__file__).parents[1]

    def launch(*words: str, processes: int = 2) -> "subprocess.Popen[str]":
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
            [*start, *words], text=True, env=environment, cwd=root, start_new_session=True, **pipes
        )

    return launch


@pytest.fixture(scope="session")
def draw_heads() -> Callable[[SwitchableModel], SwitchableModel]:
    """Give each set of a network's private classifiers values of its own."""

    def draw(net: SwitchableModel) -> SwitchableModel:
        generator = torch.Generator().manual_seed(5)
        for parameter in (p for _, head in net.switchable_heads() for p in head.parameters()):
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
        return net

    return draw


@pytest.fixture
def make_net() -> Callable[..., SwitchableModel]:
    """Makes a network small enough to be trained."""

    def make(
        resolutions: tuple[int, ...] = (32, 24, 16), *, private: Any = True, classes: int = 3, dropout: float = 0.0
    ) -> SwitchableModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Tinier(classes, dropout)
        own_head = isinstance(private, tuple) and "head" in private
        return make_switchable(model, resolutions, private=private, large_head=own_head)

    return make


@pytest.fixture
def table() -> Callable[..., Benchmark]:
    """A benchmark out of rows (resolution, latency in ms, top-1)."""

    def make(*rows: tuple[int, float, float | None], machine: str | None = None, **other: Any) -> Benchmark:
        own = {"form": "plain", "batch_size": 1, "parameters": 7, "p95_ms": 9.0, "images_per_second": 1.0, **other}
        costs = tuple(
            Cost(resolution=r, latency_ms=ms, top1=top1, multiply_adds=r * r, peak_memory_bytes=None, **own)
            for r, ms, top1 in rows
        )
        here = machine_key(torch.device("cpu")) if machine is None else machine
        return Benchmark(machine=here, amp="off", rounds=3, costs=costs, switching=Switching(32, 0.001))

    return make
