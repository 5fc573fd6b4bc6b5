"""The values of the BN sets by layer and resolution (RS-Nets, Fig. 6)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.study.figures import PAGE, legend_above, new_figure, paper_style, step_style
from rsconvert.surgery import SwitchableModel
from rsconvert.text import Table

__all__ = ["BatchNormSets", "SetRow", "batchnorm_sets", "plot_batchnorm"]

_LEAST_RANGE = 0.1  # of the axis of distances: that of equal sets shows no range of its own
_SYMBOLS = {"weight": "γ", "bias": "β", "running_mean": "μ", "running_var": "σ²"}


@dataclass(frozen=True)
class SetRow:
    """One tensor of one layer in the set of one resolution.

    Attributes:
        layer: its name in the network.
        tensor: ``weight``, ``bias``, ``running_mean`` or ``running_var``.
        mean: over the channels, with their standard deviation.
        distance: from the native set: ‖a - b‖ / √((‖a‖² + ‖b‖²) / 2); 0 for equal, √2 for unrelated ones.
    """

    layer: str
    tensor: str
    resolution: int
    mean: float
    deviation: float
    distance: float


@dataclass(frozen=True)
class BatchNormSets:
    """The sets of a network: a row for each layer, in the order of the modules, each tensor and each resolution."""

    resolutions: tuple[int, ...]
    rows: tuple[SetRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the resolutions as strings."""
        distances = {str(r): {tensor: self._distance(tensor, r) for tensor in _SYMBOLS} for r in self.resolutions}
        return {"mean_distance": distances, "rows": [dict(vars(row)) for row in self.rows]}

    def table(self) -> Table:
        """Return the mean distances, a row per resolution."""
        rows: list[list[object]] = []
        for r in self.resolutions:
            found = [self._distance(tensor, r) for tensor in _SYMBOLS]
            rows.append([r, *("" if distance is None else f"{distance:.4f}" for distance in found)])
        layers = len({row.layer for row in self.rows})
        note = f"Distance from the native set, the mean over {layers} BatchNorms; 0: equal, 1.41: unrelated."
        return Table(["resolution", *_SYMBOLS.values()], rows, note)

    def data(self) -> Table:
        """Return all rows."""
        return Table(list(SetRow.__annotations__), [list(vars(row).values()) for row in self.rows])

    def _distance(self, tensor: str, resolution: int) -> float | None:
        """Return the mean distance over the layers; None if no layer has such a tensor."""
        found = [row.distance for row in self.rows if (row.tensor, row.resolution) == (tensor, resolution)]
        return sum(found) / len(found) if found else None


def batchnorm_sets(net: SwitchableModel) -> BatchNormSets:
    """Read the sets of a network; needs no data.

    Raises:
        UnsupportedModelError: the network has one BN set for all resolutions.
    """
    rows = tuple(
        row
        for name, bn in net.switchable_bns()
        for tensor in _SYMBOLS
        for resolution, one in zip(net.resolutions, bn.sets, strict=True)
        for row in _rows(name, tensor, resolution, one, bn.native)
    )
    if not rows:
        raise UnsupportedModelError(
            "the network has one BN set for all resolutions; private sets are needed. Convert it with private=True."
        )
    return BatchNormSets(net.resolutions, rows)


@paper_style
def plot_batchnorm(result: BatchNormSets) -> Figure:
    """Draw a curve per resolution over the layers: the means (above), the distances from the native set (below)."""
    figure = new_figure(PAGE, 3.6)
    places = {name: i for i, name in enumerate(dict.fromkeys(row.layer for row in result.rows), start=1)}
    above, below = figure.subplots(2, len(_SYMBOLS), sharex=True)
    for tensor, top, bottom in zip(_SYMBOLS, above, below, strict=True):
        for i, resolution in enumerate(result.resolutions):
            rows = [row for row in result.rows if (row.tensor, row.resolution) == (tensor, resolution)]
            style, xs = step_style(i, len(result.resolutions)), [places[row.layer] for row in rows]
            top.plot(xs, [row.mean for row in rows], label=str(resolution), linewidth=0.9, **style)
            # The native curve lies on the axis.
            bottom.plot(xs, [row.distance for row in rows], linewidth=0.9, clip_on=False, **style)
        top.set_title(_SYMBOLS[tensor])
        bottom.set_ylim(0, max(_LEAST_RANGE, bottom.get_ylim()[1]))
        bottom.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    variances = [row.mean for row in result.rows if row.tensor == "running_var" and row.mean > 0]
    if variances and max(variances) > 10 * min(variances):
        above[-1].set_yscale("log")
    above[0].set_ylabel("mean over channels")
    below[0].set_ylabel(f"distance from {max(result.resolutions)}")
    figure.align_ylabels()
    figure.supxlabel("BatchNorm, from the input to the output", fontsize=8)
    legend_above(figure, above[:1], 8, "resolution (pixels)")
    return figure


def _rows(layer: str, tensor: str, resolution: int, one: nn.Module, native: nn.Module) -> Iterator[SetRow]:
    """Yield the row of a tensor, if the BatchNorm has it."""
    if isinstance(getattr(native, tensor, None), Tensor):
        values, others = (getattr(bn, tensor).detach().double().cpu().numpy() for bn in (one, native))
        scale = float(np.sqrt((np.square(values).sum() + np.square(others).sum()) / 2))
        distance = float(np.linalg.norm(values - others)) / scale if scale else 0.0
        yield SetRow(layer, tensor, resolution, float(values.mean()), float(values.std()), distance)
