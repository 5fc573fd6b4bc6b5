"""int8 files out of the ranges that a network holds: plain ones, or one that switches."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rsconvert.export.onnx.correction import apply_shifts
from rsconvert.export.onnx.int8_whole import assembled
from rsconvert.export.onnx.plain_graphs import PlainGraphs
from rsconvert.export.onnx.quantized import quantized
from rsconvert.export.onnx.ranges import ranges_at
from rsconvert.export.onnx.rounding import LEVELS, REDUCED, with_rounded_weights
from rsconvert.export.opening import needed, open_onnx
from rsconvert.export.verification import verify_export
from rsconvert.surgery import SwitchableModel

__all__ = ["Int8Paths"]


class Int8Paths:
    """The folded paths of a network in int8.

    Args:
        reduce_range: weights of 7 bits.
    Raises:
        ConfigError: the network holds no ranges.
        UnsupportedModelError: the exporter can't take it for any size.
        CheckpointError: what the exporter makes disagrees with the network.
    """

    def __init__(self, net: SwitchableModel, *, reduce_range: bool = False) -> None:
        ranges_at(net, net.native)
        self._net, self._reduce_range = net, reduce_range
        rounded = with_rounded_weights(net, REDUCED if reduce_range else LEVELS)
        if not reduce_range:  # the shifts are those of 8 bits
            apply_shifts(rounded, (net.measured.int8 or {}).get("shifts", {}))
        self._graphs = PlainGraphs(rounded)

    def plain(self, resolution: int, *, bound: bool = True) -> Any:
        """Return the ``onnx.ModelProto`` of one resolution, which takes no other size if ``bound``."""
        ranges, graph = ranges_at(self._net, resolution), self._graphs.at(resolution)
        _check(graph, self._graphs.net, resolution)
        model = quantized(graph, ranges, reduce_range=self._reduce_range)
        if bound:
            for dim in model.graph.input[0].type.tensor_type.shape.dim[-2:]:
                dim.dim_value = resolution
        return model

    def switching(self, branches: Sequence[int], *, compact: bool = False) -> Any:
        """Return the ``onnx.ModelProto`` that runs the branch nearest to the input's resolution."""
        models = {side: self.plain(side, bound=False) for side in branches}
        return assembled(models, compact=compact) if len(models) > 1 else models[branches[0]]


def _check(graph: Any, net: SwitchableModel, resolution: int) -> None:
    """Compare the graph that is to be quantized with the network of rounded weights: int8 itself hides small errors."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "float.onnx"
        needed("onnx").save(graph, file)
        verify_export(open_onnx(file), net, [resolution]).check(f"the float graph of {resolution}")
