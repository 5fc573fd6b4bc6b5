"""ONNX files as modules of torch, which what measures networks takes: accuracy of a file, latency of int8 paths."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from rsconvert.errors import ConfigError, ResolutionError, first_line
from rsconvert.export.onnx.int8_files import Int8Paths
from rsconvert.export.opening import Export, needed, open_onnx
from rsconvert.models import set_source
from rsconvert.surgery import SwitchableModel

__all__ = ["OnnxModel", "int8_paths", "onnx_network"]


class OnnxModel(nn.Module):
    """An ONNX file that ONNX Runtime runs on the CPU.

    ``computes_as`` is the path of torch that says how much it computes; its tensors are not this module's.
    """

    def __init__(self, export: Export, net: SwitchableModel, resolution: int) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()), requires_grad=False)  # for those who ask where a module is
        self.__dict__["export"] = export
        self.__dict__["computes_as"] = net.at(resolution)
        crop_pct = net.source.preprocessing.crop_pct
        alone = crop_pct[net.resolutions.index(resolution)] if isinstance(crop_pct, tuple) else crop_pct
        set_source(self, replace(net.source, preprocessing=replace(net.source.preprocessing, crop_pct=alone)))

    def forward(self, x: Tensor) -> Tensor:
        export: Export = self.__dict__["export"]
        try:
            return export.run(x.detach().float().cpu().contiguous()).to(x.device)
        except Exception as error:  # ONNX Runtime's own
            raise ResolutionError(
                f"resolution {x.shape[-1]} does not work in the ONNX file ({first_line(error)}); one that it was "
                "exported for is needed."
            ) from error


def onnx_network(file: str | PathLike[str], net: SwitchableModel) -> OnnxModel:
    """Return an ONNX file of a network as a module, such as for a baseline of ``evaluate``.

    Raises:
        CheckpointError, ConfigError: as ``open_onnx``.
    """
    return OnnxModel(open_onnx(file), net, net.native)


def int8_paths(net: SwitchableModel, resolutions: Sequence[int]) -> dict[int, nn.Module]:
    """Return the path of each resolution in int8, for ``measure_costs``.

    Raises:
        ConfigError: the network holds no ranges, or is not on the CPU.
        UnsupportedModelError: the exporter can't take it for any size.
    """
    if net.alpha.device.type != "cpu":
        raise ConfigError(
            f"form is int8 on {net.alpha.device.type}; ONNX Runtime computes it on the CPU alone. Take --device cpu."
        )
    paths = Int8Paths(net)
    found: dict[int, nn.Module] = {}
    with TemporaryDirectory() as folder:
        for resolution in resolutions:
            file = Path(folder) / f"{resolution}.onnx"
            needed("onnx").save(paths.plain(resolution), file)
            found[resolution] = OnnxModel(open_onnx(file), net, resolution)
    return found
