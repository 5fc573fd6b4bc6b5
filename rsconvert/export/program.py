"""Programs of torch.export: one path as a file that torch alone runs, optionally compiled ahead of time."""

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

from rsconvert.checkpoint import replacing
from rsconvert.errors import ConfigError, UnsupportedModelError, first_line
from rsconvert.export.logits import keep_logits
from rsconvert.export.target import image_facts
from rsconvert.models import as_call, example_arguments
from rsconvert.surgery import FoldReport, SwitchableModel, fold_batchnorm, largest_difference

__all__ = ["check_compiler", "write_program"]

_FACTS = "rsconvert.json"
# torch.export takes 0 and 1 for special sizes.
_BATCH = 2
_TOLERANCE = 1e-4


def write_program(
    net: SwitchableModel, resolution: int, path: Path, *, fold: bool = False, aot: bool = False
) -> FoldReport | None:
    """Write the file of `export_program`, compared with the path; return what was folded."""
    model, report = net.extract(resolution).eval().requires_grad_(False), None
    if fold:
        model, report = fold_batchnorm(model, resolution)
    model = keep_logits(model, net.source.task)
    program = _program(model, resolution)
    facts = {_FACTS: json.dumps(image_facts(net, resolution))}
    package = io.BytesIO()
    if aot:
        _compile(program, package, facts)
    else:
        torch.export.save(program, package, extra_files=facts)
    _check_equal(model, package, resolution, aot)
    with replacing(path) as part:
        part.write_bytes(package.getvalue())
    return report


def check_compiler() -> None:
    """Raise a ConfigError if there is no C++ compiler."""
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ConfigError(
            "aot is set and no C++ compiler is found; AOTInductor needs one. Install g++ or clang, or leave aot out."
        ) from error


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


def _compile(program: torch.export.ExportedProgram, package: io.BytesIO, facts: Mapping[str, str]) -> None:
    settings = {"aot_inductor.metadata": facts}
    try:
        with warnings.catch_warnings(action="ignore"):  # of torch about itself
            torch._inductor.aoti_compile_and_package(program, package_path=package, inductor_configs=settings)
    except Exception as error:  # torch's own, and the compiler's
        raise UnsupportedModelError(
            f"AOTInductor can't compile the program ({type(error).__name__}: {first_line(error)}); a working C++ "
            "compiler and operators that it knows are needed. Leave aot out."
        ) from error


def _check_equal(model: nn.Module, package: io.BytesIO, resolution: int, aot: bool) -> None:
    """Compare what the file computes with the model, in batches of other sizes than that of the export."""
    package.seek(0)
    with warnings.catch_warnings(action="ignore"):  # of torch about itself
        run = torch._inductor.aoti_load_package(package) if aot else torch.export.load(package).module()
    for batch in (1, _BATCH + 1):
        args, kwargs = as_call(example_arguments(model, resolution, batch))
        with torch.no_grad():
            difference = largest_difference(model(*args, **kwargs), run(*args, **kwargs))
        if not difference <= _TOLERANCE:
            raise UnsupportedModelError(
                f"the program of {type(model).__name__} at {resolution} differs by {difference:.1e} in a batch of "
                f"{batch}; {_TOLERANCE} is accepted. Choose another format, and please report it."
            )
