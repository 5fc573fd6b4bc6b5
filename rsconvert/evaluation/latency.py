"""Latency: many runs timed by turns, so that what disturbs the machine disturbs all alike; the time of a switch."""

import tempfile
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from rsconvert.checkpoint import write_tensors
from rsconvert.errors import ResolutionError
from rsconvert.surgery import SwitchableModel

__all__ = ["Latency", "Switching", "measure_latency", "measure_switching"]

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Latency:
    """Median and 95th percentile of a run's time, in milliseconds."""

    median_ms: float
    p95_ms: float


def measure_latency(
    runs: Mapping[_Key, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 3,
    device: torch.device | None = None,
) -> dict[_Key, Latency]:
    """Time each run once a round, beginning with another one from round to round.

    Between two percentiles the value is interpolated linearly.

    Args:
        rounds: how many are counted, after ``warm_up`` rounds that are not.
        device: a GPU is waited for before and after each run; its work is not done when a call returns.
    """
    names = list(runs)
    times: dict[_Key, list[float]] = {name: [] for name in names}
    for i in range(warm_up + rounds):
        for j in range(len(names)):
            name = names[(i + j) % len(names)]
            times[name].append(_milliseconds(runs[name], device))
    percentiles = {name: np.percentile(column[warm_up:], [50, 95]) for name, column in times.items()}
    return {name: Latency(float(median), float(p95)) for name, (median, p95) in percentiles.items()}


def _milliseconds(run: Callable[[], object], device: torch.device | None) -> float:
    _wait(device)
    start = time.perf_counter()
    result = run()
    _wait(device)
    took = time.perf_counter() - start
    del result  # freeing it is not part of the run
    return 1e3 * took


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Switching:
    """Median times in milliseconds of ``net.at`` at a trained and at an untrained resolution, and of its alternative.

    ``create_ms`` is the time to build a plain model, ``load_ms`` the time to fill it from a safetensors file that the
    system has in memory. None stands for what could not be done.
    """

    trained: int
    trained_ms: float
    untrained: int | None = None
    untrained_ms: float | None = None
    create_ms: float | None = None
    load_ms: float | None = None

    def __str__(self) -> str:
        parts = [f"net.at({self.trained}) {1e3 * self.trained_ms:.2g} µs"]
        if self.untrained_ms is not None:
            parts.append(f"net.at({self.untrained}), interpolated, {self.untrained_ms:.2f} ms")
        if self.create_ms is not None and self.load_ms is not None:
            parts.append(f"another model: created in {self.create_ms:.0f} ms, its file loaded in {self.load_ms:.0f} ms")
        return "switching: " + "; ".join(parts)


def measure_switching(
    net: SwitchableModel, create: Callable[[], nn.Module] | None = None, *, rounds: int = 5
) -> Switching:
    """Time ``net.at``; and then, by turns, to create a plain model and to load a file into it.

    Apart, because a whole model's weights drive from the processor's cache what the small work of a switch finds there.

    Args:
        create: makes a plain model of the kind that the network replaces; None leaves that part out.
    Raises:
        CheckpointError: the system's temporary folder has no room for a file of its weights.
    """
    trained, untrained = net.resolutions[-1], _untrained(net)
    switches: dict[str, Callable[[], object]] = {"trained_ms": lambda: net.at(trained)}
    if untrained is not None:
        switches["untrained_ms"] = lambda: net.at(untrained)
    measured = partial(measure_latency, rounds=rounds, warm_up=1, device=net.alpha.device)
    times = measured(switches)
    if create is not None:
        with tempfile.TemporaryDirectory() as folder:
            file, model = Path(folder) / "model.safetensors", create()
            write_tensors(model.state_dict(), file, {"format": "pt"})
            times |= measured({"create_ms": create, "load_ms": lambda: model.load_state_dict(load_file(file))})
    median_ms = {name: time.median_ms for name, time in times.items()}
    return Switching(
        trained,
        median_ms["trained_ms"],
        untrained,
        median_ms.get("untrained_ms"),
        median_ms.get("create_ms"),
        median_ms.get("load_ms"),
    )


def _untrained(net: SwitchableModel) -> int | None:
    """Return a resolution halfway between the two largest, or half the smallest; None if the network can't take it."""
    sides = (sum(net.resolutions[:2]) // 2, net.resolutions[-1] // 2)
    side = next(side for side in sides if side not in net.resolutions)
    try:
        net.at(side)
    except ResolutionError:
        return None
    return side
