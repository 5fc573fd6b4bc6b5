"""The command export: a network for others."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsconvert.cli.loading import load_network
from rsconvert.cli.options import best_of, force_option, json_option, model_option, numbers, refuse_existing
from rsconvert.cli.printing import print_result
from rsconvert.errors import ConfigError

if TYPE_CHECKING:
    from rsconvert.surgery import SwitchableModel

__all__ = ["export"]

# The options that only some formats take.
_FORMATS = {
    "fold_bn": ("timm", "torchvision", "program"),
    "aot": ("program",),
    "compact": ("onnx",),
    "shared_weights": ("onnx",),
}


@click.command()
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
@click.option(
    "--format",
    "form",
    type=click.Choice(["switchable", "timm", "torchvision", "program", "onnx"]),
    default="switchable",
    show_default=True,
)
@click.option(
    "--resolution",
    metavar="LIST|all",
    help="Side in pixels of the plain network, trained or not; each of several gets a file, NAME-160.SUFFIX.",
)
@click.option("--resolutions", help="The sets to keep in a switchable file; the default is all.")
@click.option("--fold-bn", is_flag=True, help="Fold BatchNorm into convolutions, where exact; onnx does so anyway.")
@click.option("--aot", is_flag=True, help="program: compile it for this processor, by AOTInductor.")
@click.option("--compact", is_flag=True, help="onnx that switches: slower, with the weights in memory once.")
@click.option("--shared-weights", is_flag=True, help="onnx of several resolutions: one file of weights for all.")
@click.option("-o", "--output", required=True, type=click.Path(), help="File, or folder for timm.")
@model_option
@force_option
@json_option
def export(
    checkpoint: str,
    form: str,
    resolution: str | None,
    resolutions: str | None,
    output: str,
    model: str | None,
    force: bool,
    as_json: bool,
    **choices: bool,
) -> None:
    """Write the network of CHECKPOINT, or the best one of RUN_DIR, for others.

    switchable: one clean file. timm: a folder that timm opens as local-dir:FOLDER. torchvision: a state_dict. program:
    a file that torch.export.load opens. onnx: one file that chooses its BN set by the size of its input, or with
    --resolution a plain file for each.
    """
    _check_options(form, resolution, resolutions, choices)
    if resolution is None and form != "onnx":
        refuse_existing(Path(output), force)
    from rsconvert import save
    from rsconvert.checkpoint import subset

    net = load_network(best_of(checkpoint), model)
    sides = _sides(net, resolution)
    facts: dict[str, Any] = {
        "output": output,
        "format": form,
        "resolution": sides[0] if sides and len(sides) == 1 else sides,
    }
    if form == "switchable":
        save(net if resolutions is None else subset(net, numbers(resolutions)), output)
        lines = [f"wrote {output}"]
    else:
        write = _write_onnx if form == "onnx" else _write_plain
        more, lines = write(net, form, output, sides, force, choices)
        facts |= more
    print_result(facts, as_json, "\n".join(lines))


def _sides(net: "SwitchableModel", resolution: str | None) -> Any:
    """Return the sides to write as a list, None if the file takes all; what is no number stays for the library."""
    if resolution is None:
        return None
    return list(net.resolutions) if resolution == "all" else numbers(resolution)


def _check_options(form: str, resolution: str | None, resolutions: str | None, choices: dict[str, bool]) -> None:
    if form != "onnx" and (form == "switchable") != (resolution is None):
        raise ConfigError(
            f"format is {form} and resolution {resolution}; a plain format needs one, switchable none. Correct it."
        )
    if resolutions is not None and form != "switchable":
        raise ConfigError(
            f"resolutions is {resolutions} for the format {form}; it chooses the sets of a switchable file. "
            "Use --resolution."
        )
    for name, formats in _FORMATS.items():
        if choices[name] and form not in formats:
            raise ConfigError(
                f"{name.replace('_', '-')} is set for the format {form}; it is accepted for {', '.join(formats)}. "
                "Leave it out."
            )


def _write_onnx(
    net: "SwitchableModel", _: str, output: str, sides: list[int] | None, force: bool, choices: dict[str, bool]
) -> tuple[dict[str, Any], list[str]]:
    from rsconvert import export_onnx

    compact, shared = choices["compact"], choices["shared_weights"]
    files = export_onnx(net, output, sides, compact=compact, shared_weights=shared, force=force)
    facts = {"files": {str(path): result.to_dict() for path, result in files.items()}}
    return facts, [f"{result}\nwrote {path}" for path, result in files.items()]


def _write_plain(
    net: "SwitchableModel", form: str, output: str, sides: list[int], force: bool, choices: dict[str, bool]
) -> tuple[dict[str, Any], list[str]]:
    from rsconvert.export import export_plain, fold_batchnorm

    fold = choices["fold_bn"]
    places = export_plain(net, form, output, sides, fold=fold, aot=choices["aot"], force=force)
    reports = [fold_batchnorm(net.at(side), side)[1] for side in places] if fold else []
    facts: dict[str, Any] = {"files": {str(side): str(place) for side, place in places.items()}}
    if fold:
        facts["folding"] = {str(report.resolution): asdict(report) for report in reports}
    return facts, [*map(str, reports), *(f"wrote {place}" for place in places.values())]
