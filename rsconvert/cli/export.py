"""The command export: a network for others."""

from pathlib import Path

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
    type=click.Choice(["switchable", "timm", "torchvision"]),
    default="switchable",
    show_default=True,
)
@click.option("--resolution", type=int, help="Side in pixels of the plain network; trained or not.")
@click.option("--resolutions", help="The sets to keep in a switchable file; the default is all.")
@click.option("-o", "--output", required=True, type=click.Path(), help="File, or folder for timm.")
@model_option
@force_option
@json_option
def export(
    checkpoint: str,
    form: str,
    resolution: int | None,
    resolutions: str | None,
    output: str,
    model: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the network of CHECKPOINT, or the best one of RUN_DIR, for others.

    switchable: one clean file. timm: a folder that timm opens as local-dir:FOLDER. torchvision: a state_dict.
    """
    if (form == "switchable") == (resolution is not None):
        raise ConfigError(
            f"format is {form} and resolution {resolution}; a plain format needs one, switchable none. Correct it."
        )
    if resolutions is not None and form != "switchable":
        raise ConfigError(
            f"resolutions is {resolutions} for the plain format {form}; one --resolution is accepted. Correct it."
        )
    refuse_existing(Path(output), force)
    from rsconvert import export_timm, export_torchvision, save
    from rsconvert.checkpoint import subset

    net = load_network(best_of(checkpoint), model)
    if form == "switchable":
        save(net if resolutions is None else subset(net, numbers(resolutions)), output)
    else:
        assert resolution is not None
        (export_timm if form == "timm" else export_torchvision)(net, resolution, output, force=force)
    print_result({"output": output, "format": form, "resolution": resolution}, as_json, f"wrote {output}")
