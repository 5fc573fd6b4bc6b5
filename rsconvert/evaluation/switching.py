"""The time to switch to another resolution, beside the time to open another network in its place."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from rsconvert.checkpoint import write_tensors
from rsconvert.errors import ResolutionError
from rsconvert.evaluation.latency import measure_latency
from rsconvert.surgery import SwitchableModel

__all__ = ["Switching", "measure_switching"]


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
    others: dict[str, Callable[[], object]] = {}
    if untrained is not None:
        switches["untrained_ms"] = lambda: net.at(untrained)
    with tempfile.TemporaryDirectory() as folder:
        if create is not None:
            file, model = Path(folder) / "model.safetensors", create()
            write_tensors(model.state_dict(), file, {"format": "pt"})
            others = {"create_ms": create, "load_ms": lambda: model.load_state_dict(load_file(file))}
        measure = partial(measure_latency, rounds=rounds, warm_up=1, device=net.alpha.device)
        times = measure(switches) | measure(others)
    return Switching(trained, untrained=untrained, **{name: time.median_ms for name, time in times.items()})


def _untrained(net: SwitchableModel) -> int | None:
    """Return a resolution halfway between the two largest, or half the smallest; None if the network can't take it."""
    sides = (sum(net.resolutions[:2]) // 2, net.resolutions[-1] // 2)
    side = next(side for side in sides if side not in net.resolutions)
    try:
        net.at(side)
    except ResolutionError:
        return None
    return side
