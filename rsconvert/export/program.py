"""Programs of torch.export: one path as a file that torch alone runs, optionally compiled ahead of time."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rsconvert.checkpoint import replacing
from rsconvert.errors import CheckpointError, ConfigError, UnsupportedModelError
from rsconvert.export.fold import fold_batchnorm
from rsconvert.export.stock import check_target, crop_pct_at
from rsconvert.surgery import SwitchableModel
from rsconvert.zoo import example_arguments
from rsconvert.zoo.building import first_line

__all__ = ["export_program"]

_FACTS = "rsconvert.json"
# torch.export takes 0 and 1 for special sizes.
_BATCH = 2


def export_program(
    net: SwitchableModel,
    resolution: int,
    path: str | Path,
    *,
    fold: bool = False,
    aot: bool = False,
    force: bool = False,
) -> Path:
    """Write a path as a ``.pt2`` file that torch runs without rsconvert, timm or torchvision.

    ``torch.export.load(path).module()(x)`` computes what ``net.at(resolution)(x)`` does for x (N, C, resolution,
    resolution) with any N; the file is for the device of the network. With ``aot`` the file is a package of
    AOTInductor instead, machine code for this kind of processor: ``torch._inductor.aoti_load_package(path)(x)``.
    The facts of the images (mean, std, interpolation, crop_pct, class names) lie in the file as ``rsconvert.json``, and
    in the package's ``get_metadata()``.

    Args:
        resolution: trained or not; for an untrained one the BN tensors are interpolated.
        fold: first fold each BatchNorm into the convolution beside it where that is exact.
        force: replace a file that exists.
    Raises:
        UnsupportedModelError: torch can't export the path, or compiles it to something else.
        ConfigError: ``aot`` is set, and there is no C++ compiler.
        CheckpointError: the suffix is another, or the file exists or can't be written.
        ResolutionError: the network does not work at the resolution.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise CheckpointError(f"{path} has the suffix {path.suffix!r}; a program is a .pt2 file. Rename it.")
    check_target(path, force)
    if aot:
        _check_compiler()
    plain = net.extract(resolution).eval()
    model = fold_batchnorm(plain, resolution)[0] if fold else plain
    program = _program(model, resolution)
    facts = json.dumps(_facts(net, resolution))
    with replacing(path) as part:
        if aot:
            _compile(program, part, facts)
        else:
            torch.export.save(program, part, extra_files={_FACTS: facts})
    return path


def _program(model: nn.Module, resolution: int) -> torch.export.ExportedProgram:
    arguments = example_arguments(model, resolution, _BATCH)
    batch = torch.export.Dim("batch")
    try:
        with torch.no_grad():
            return torch.export.export(model, arguments, dynamic_shapes=tuple({0: batch} for _ in arguments))
    except Exception as error:  # torch's own, and whatever the model's code raises
        raise UnsupportedModelError(
            f"torch.export can't take {type(model).__name__} at {resolution} ({type(error).__name__}: "
            f"{first_line(error)}); a forward of tensors alone, for any batch, is needed. Choose another format."
        ) from error
