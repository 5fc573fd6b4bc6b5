"""Peak memory against sums by hand."""

import pytest
import torch
from torch import Tensor, nn

from rsconvert.evaluation.peak_memory import peak_memory

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
