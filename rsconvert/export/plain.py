"""Plain exports by the name of their format, of one resolution or of several side by side."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.export.program import export_program
from rsconvert.export.stock import export_timm, export_torchvision
from rsconvert.surgery import SwitchableModel

__all__ = ["export_plain"]

# The function that writes each, and the suffix of the files beside each other.
_WRITERS: dict[str, tuple[Any, str]] = {
    "timm": (export_timm, ""),
    "torchvision": (export_torchvision, ".safetensors"),
    "program": (export_program, ".pt2"),
}


def export_plain(
    net: SwitchableModel,
    form: str,
    output: str | Path,
    resolutions: Sequence[int] | None = None,
    *,
    fold: bool = False,
    aot: bool = False,
    force: bool = False,
) -> dict[int, Path]:
    """Write one resolution to ``output``, or several into a folder of that name; return the place of each.

    Args:
        form: ``timm``, ``torchvision`` or ``program``.
        resolutions: None takes all trained ones, and a folder even if that is one.
        fold, aot, force: as `export_program` has them; ``aot`` is for programs alone.
    Raises:
        ConfigError: ``aot`` is set for another format.
        CheckpointError: the place can't be written.
        UnsupportedModelError, ResolutionError: as the writers of the formats.
    """
    write, suffix = _WRITERS[form]
    if aot and form != "program":
        raise ConfigError(f"aot is set for the format {form}; programs alone are compiled. Leave it out.")
    write = partial(write, aot=aot) if aot else write
    if resolutions is not None and len(resolutions) == 1:
        return {resolutions[0]: write(net, resolutions[0], output, fold=fold, force=force)}
    try:
        Path(output).mkdir(exist_ok=force)
    except OSError as error:
        raise CheckpointError(
            f"{output} can't be made a folder ({error.strerror}); a new name in a folder that exists is needed. Choose "
            "another one, or write into one that exists with --force."
        ) from error
    places = {r: Path(output) / f"{r}{suffix}" for r in resolutions or net.resolutions}
    return {r: write(net, r, place, fold=fold, force=force) for r, place in places.items()}
