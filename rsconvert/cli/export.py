"""The command export: a network for others."""

from pathlib import Path
from typing import Any

import click

from rsconvert.cli.loading import load_network
from rsconvert.cli.options import best_of, force_option, json_option, model_option, numbers, refuse_existing
from rsconvert.cli.printing import print_result
from rsconvert.errors import ConfigError

__all__ = ["export"]


@click.command()
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
@click.option(
    "--format",
    "form",
    type=click.Choice(["switchable", "timm", "torchvision", "onnx"]),
    default="switchable",
    show_default=True,
)
@click.option("--resolution", help="Side in pixels of the plain network, trained or not; onnx takes a list.")
@click.option("--resolutions", help="The sets to keep in a switchable file; the default is all.")
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
    compact: bool,
    shared_weights: bool,
    output: str,
    model: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the network of CHECKPOINT, or the best one of RUN_DIR, for others.

    switchable: one clean file. timm: a folder that timm opens as local-dir:FOLDER. torchvision: a state_dict. onnx: one
    file that chooses its BN set by the size of its input, or with --resolution a plain file for each.
    """
    sides = None if resolution is None else numbers(resolution)
    _check_options(form, sides, resolutions, compact or shared_weights)
    if form != "onnx":  # of which there may be several files
        refuse_existing(Path(output), force)
    from rsconvert import export_onnx, export_timm, export_torchvision, save
    from rsconvert.checkpoint import subset

    net = load_network(best_of(checkpoint), model)
    facts: dict[str, Any] = {
        "output": output,
        "format": form,
        "resolution": sides[0] if sides and len(sides) == 1 else sides,
    }
    lines = [f"wrote {output}"]
    if form == "switchable":
        save(net if resolutions is None else subset(net, numbers(resolutions)), output)
    elif form == "onnx":
        files = export_onnx(net, output, sides, compact=compact, shared_weights=shared_weights, force=force)
        facts["files"] = {str(path): result.to_dict() for path, result in files.items()}
        lines = [f"{result}\nwrote {path}" for path, result in files.items()]
    else:
        assert sides is not None
        (export_timm if form == "timm" else export_torchvision)(net, sides[0], output, force=force)
    print_result(facts, as_json, "\n".join(lines))


def _check_options(form: str, sides: list[Any] | None, resolutions: str | None, onnx_alone: bool) -> None:
    if form != "onnx" and len(sides or []) != (0 if form == "switchable" else 1):
        raise ConfigError(
            f"format is {form} and resolution {sides}; a plain format needs one, switchable none. Correct it."
        )
    if resolutions is not None and form != "switchable":
        raise ConfigError(
            f"resolutions is {resolutions} for the format {form}; it chooses the sets of a switchable file. "
            "Use --resolution."
        )
    if onnx_alone and form != "onnx":
        raise ConfigError(f"compact or shared-weights is set for the format {form}; onnx takes them. Leave them out.")
