"""Programs of torch.export: one path as a file that torch alone runs, optionally compiled ahead of time."""

import io
import json
import warnings
from pathlib import Path

import torch
from torch import nn
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

from rsconvert.checkpoint import replacing
from rsconvert.errors import ConfigError, UnsupportedModelError, first_line
from rsconvert.export.facts import image_facts
from rsconvert.export.target import check_target
from rsconvert.models import as_call, example_arguments
from rsconvert.surgery import SwitchableModel, fold_batchnorm, largest_difference

__all__ = ["export_program"]

_FACTS = "rsconvert.json"
# torch.export takes 0 and 1 for special sizes.
_BATCH = 2
_TOLERANCE = 1e-4


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
    check_target(path, force, (".pt2",))
    if aot:
        _check_compiler()
    plain = net.extract(resolution).eval().requires_grad_(False)
    model = fold_batchnorm(plain, resolution)[0] if fold else plain
    program = _program(model, resolution)
    facts = json.dumps(image_facts(net, resolution))
    package = _compiled(program, facts) if aot else _saved(program, facts)
    _check_equal(model, package, resolution, aot)
    with replacing(path) as part:
        part.write_bytes(package)
    return path


def _program(model: nn.Module, resolution: int) -> torch.export.ExportedProgram:
    args, kwargs = as_call(example_arguments(model, resolution, _BATCH))
    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch} for name in kwargs} or tuple({0: batch} for _ in args)
    try:
        with torch.no_grad():
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    except Exception as error:  # torch's own, and whatever the model's code raises
        raise UnsupportedModelError(
            f"torch.export can't take {type(model).__name__} at {resolution} ({type(error).__name__}: "
            f"{first_line(error)}); a forward of tensors alone, for any batch, is needed. Choose another format."
        ) from error


def _saved(program: torch.export.ExportedProgram, facts: str) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={_FACTS: facts})
    return file.getvalue()


def _check_equal(model: nn.Module, package: bytes, resolution: int, aot: bool) -> None:
    """Compare what the file computes with the model, in batches of other sizes than that of the export."""
    file = io.BytesIO(package)
    with warnings.catch_warnings(action="ignore"):  # of torch about itself
        run = torch._inductor.aoti_load_package(file) if aot else torch.export.load(file).module()
    for batch in (1, _BATCH + 1):
        args, kwargs = as_call(example_arguments(model, resolution, batch))
        with torch.no_grad():
            difference = largest_difference(model(*args, **kwargs), run(*args, **kwargs))
        if not difference <= _TOLERANCE:
            raise UnsupportedModelError(
                f"the program of {type(model).__name__} at {resolution} differs by {difference:.1e} in a batch of "
                f"{batch}; {_TOLERANCE} is accepted. Choose another format, and please report it."
            )


def _check_compiler() -> None:
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ConfigError(
            "aot is set and no C++ compiler is found; AOTInductor needs one. Install g++ or clang, or leave aot out."
        ) from error


def _compiled(program: torch.export.ExportedProgram, facts: str) -> bytes:
    package = io.BytesIO()
    settings = {"aot_inductor.metadata": {_FACTS: facts}}
    try:
        with warnings.catch_warnings(action="ignore"):  # of torch about itself
            torch._inductor.aoti_compile_and_package(program, package_path=package, inductor_configs=settings)
    except Exception as error:  # torch's own, and the compiler's
        raise UnsupportedModelError(
            f"AOTInductor can't compile the program ({type(error).__name__}: {first_line(error)}); a working C++ "
            "compiler and operators that it knows are needed. Leave aot out."
        ) from error
    return package.getvalue()
