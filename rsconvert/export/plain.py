"""Plain exports by the name of their format, of one resolution or of several side by side."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rsconvert.errors import ConfigError
from rsconvert.export.program import export_program
from rsconvert.export.stock import export_timm, export_torchvision
from rsconvert.export.target import check_target
from rsconvert.surgery import SwitchableModel, check_resolutions

__all__ = ["export_plain"]

_WRITERS: dict[str, Any] = {"timm": export_timm, "torchvision": export_torchvision, "program": export_program}


def export_plain(
    net: SwitchableModel,
    form: str,
    output: str | Path,
    resolutions: Sequence[int],
    *,
    fold: bool = False,
    aot: bool = False,
    force: bool = False,
) -> dict[int, Path]:
    """Write one resolution to ``output``, or several to ``NAME-160.pt2`` and so on beside it; return their places.

    Args:
        form: ``timm``, ``torchvision`` or ``program``.
        fold, aot, force: as `export_program` has them; ``aot`` is for programs alone.
    Raises:
        ConfigError: ``aot`` is set for another format.
        CheckpointError: a place is taken or can't be written.
        UnsupportedModelError, ResolutionError: as the writers of the formats.
    """
    if aot and form != "program":
        raise ConfigError(f"aot is set for the format {form}; programs alone are compiled. Leave it out.")
    write = partial(_WRITERS[form], aot=True) if aot else _WRITERS[form]
    places = _places(Path(output), check_resolutions(resolutions, "resolution", "file"), is_folder=form == "timm")
    for place in places.values():
        check_target(place, force)
    return {resolution: write(net, resolution, place, fold=fold, force=force) for resolution, place in places.items()}


def _places(output: Path, resolutions: Sequence[int], is_folder: bool) -> dict[int, Path]:
    if len(resolutions) == 1:
        return {resolutions[0]: output}
    stem, suffix = (output.name, "") if is_folder else (output.stem, output.suffix)
    return {resolution: output.with_name(f"{stem}-{resolution}{suffix}") for resolution in resolutions}
