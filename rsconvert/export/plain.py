"""Plain exports of a path, of one resolution or several: for stock timm, stock torchvision, or torch alone."""

from collections.abc import Sequence
from pathlib import Path

from rsconvert.errors import ConfigError
from rsconvert.export.program import check_compiler, write_program
from rsconvert.export.stock import TIMM_FILES, write_timm, write_torchvision
from rsconvert.export.target import Exported, check_folder, check_target, numbered, replacing_folder
from rsconvert.surgery import FoldReport, SwitchableModel, check_resolutions

__all__ = ["export_plain", "export_program", "export_timm", "export_torchvision"]


def export_timm(
    net: SwitchableModel, resolution: int, folder: str | Path, *, fold: bool = False, force: bool = False
) -> Exported:
    """Write a path as a folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` opens strictly.

    It holds ``model.safetensors`` and ``config.json``: the builder's arguments, the number and names of the classes,
    the resolution and the preprocessing. The model computes what ``net.at(resolution)`` does.

    Args:
        resolution: trained or not; for an untrained one the BN tensors are interpolated, and so is the crop_pct.
        fold: fold each BatchNorm into the convolution next to it; timm then refuses the tensors, whose file says how
            they are loaded, see docs/exports.md.
        force: replace an earlier export; a folder that holds anything else is never replaced.
    Raises:
        UnsupportedModelError: timm does not build this network from its name and arguments.
        CheckpointError: the folder exists, holds other files, or can't be written.
        ResolutionError: the network does not work at the resolution.
    """
    return export_plain(net, "timm", folder, [resolution], fold=fold, force=force)


def export_torchvision(
    net: SwitchableModel, resolution: int, path: str | Path, *, fold: bool = False, force: bool = False
) -> Exported:
    """Write a path as a state_dict that the stock torchvision model loads with ``load_state_dict(strict=True)``.

    Args:
        path: a file, ``.safetensors``, or ``.pth`` or ``.pt`` for ``torch.load``.
        fold: as `export_timm` has it; the file is ``.safetensors``.
        force: replace a file that exists.
    Raises:
        UnsupportedModelError, CheckpointError, ResolutionError: as `export_timm`; the suffix is another.
    """
    return export_plain(net, "torchvision", path, [resolution], fold=fold, force=force)


def export_program(
    net: SwitchableModel,
    resolution: int,
    path: str | Path,
    *,
    fold: bool = False,
    aot: bool = False,
    force: bool = False,
) -> Exported:
    """Write a path as a ``.pt2`` file that torch runs without rsconvert, timm or torchvision.

    ``torch.export.load(path).module()(x)`` computes what ``net.at(resolution)(x)`` does for x (N, C, resolution,
    resolution) with any N; the file is for the device of the network. With ``aot`` the file is a package of
    AOTInductor instead, machine code for this kind of processor: ``torch._inductor.aoti_load_package(path)(x)``.
    The facts of the images (mean, std, interpolation, crop_pct, class names) lie in the file as ``rsconvert.json``, and
    in the package's ``get_metadata()``.

    Raises:
        UnsupportedModelError: torch can't export the path, or compiles it to something else.
        ConfigError: ``aot`` is set, and there is no C++ compiler.
        CheckpointError, ResolutionError: as `export_torchvision`.
    """
    return export_plain(net, "program", path, [resolution], fold=fold, aot=aot, force=force)


def export_plain(
    net: SwitchableModel,
    form: str,
    output: str | Path,
    resolutions: Sequence[int],
    *,
    fold: bool = False,
    aot: bool = False,
    force: bool = False,
) -> Exported:
    """Write one resolution to ``output``, or several to ``NAME-160.pt2`` and so on next to it.

    Args:
        form: ``timm``, ``torchvision`` or ``program``.
    Raises:
        ConfigError: ``aot`` is set for another format than programs.
        UnsupportedModelError, CheckpointError, ResolutionError: as the exporters of the formats.
    """
    if aot and form != "program":
        raise ConfigError(f"aot is set for the format {form}; programs alone are compiled. Leave it out.")
    if aot:
        check_compiler()
    sides = check_resolutions(resolutions, "resolution", "file")
    files = numbered(Path(output), sides, is_folder=form == "timm")
    for path in files:
        _check(path, form, fold, force)
    reports = {path: _write(net, form, resolution, path, fold, aot) for path, resolution in files.items()}
    return Exported(files, {path: report for path, report in reports.items() if report is not None})


def _check(path: Path, form: str, fold: bool, force: bool) -> None:
    if form == "timm":
        check_folder(path, force, TIMM_FILES)
    else:
        states = (".safetensors",) if fold else (".safetensors", ".pth", ".pt")
        check_target(path, force, (".pt2",) if form == "program" else states)


def _write(net: SwitchableModel, form: str, resolution: int, path: Path, fold: bool, aot: bool) -> FoldReport | None:
    if form == "program":
        return write_program(net, resolution, path, fold=fold, aot=aot)
    if form == "torchvision":
        return write_torchvision(net, resolution, path, fold=fold)
    with replacing_folder(path) as part:
        return write_timm(net, resolution, part, fold=fold)
