"""The command export: a network for others."""

from dataclasses import asdict
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
    type=click.Choice(["switchable", "timm", "torchvision", "program"]),
    default="switchable",
    show_default=True,
)
@click.option(
    "--resolution",
    metavar="LIST|all",
    help="Side in pixels of the plain network, trained or not; several, or all trained ones, go into one folder.",
)
@click.option("--resolutions", help="The sets to keep in a switchable file; the default is all.")
@click.option("--fold-bn", is_flag=True, help="Plain: fold each BatchNorm into the convolution beside it, if exact.")
@click.option("--aot", is_flag=True, help="program: compile it for this processor, by AOTInductor.")
@click.option("-o", "--output", required=True, type=click.Path(), help="File, or folder for timm and for several.")
@model_option
@force_option
@json_option
def export(
    checkpoint: str,
    form: str,
    resolution: str | None,
    resolutions: str | None,
    fold_bn: bool,
    aot: bool,
    output: str,
    model: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the network of CHECKPOINT, or the best one of RUN_DIR, for others.

    switchable: one clean file. timm: a folder that timm opens as local-dir:FOLDER. torchvision: a state_dict. program:
    a file that torch.export.load opens. With --fold-bn the first two plain formats need a few lines more to load.
    """
    sides = None if resolution in (None, "all") else numbers(str(resolution))
    if (form == "switchable") == (resolution is not None):
        raise ConfigError(
            f"format is {form} and resolution {resolution}; a plain format needs one, switchable none. Correct it."
        )
    if resolutions is not None and form != "switchable":
        raise ConfigError(
            f"resolutions is {resolutions} for the plain format {form}; --resolution is accepted. Correct it."
        )
    if form == "switchable" and (fold_bn or aot):
        raise ConfigError("fold-bn or aot is set for the format switchable; plain formats take them. Leave them out.")
    refuse_existing(Path(output), force)
    from rsconvert import save
    from rsconvert.checkpoint import subset
    from rsconvert.export import export_plain, fold_batchnorm

    net = load_network(best_of(checkpoint), model)
    facts: dict[str, Any] = {"output": output, "format": form, "resolution": sides[0] if sides else resolution}
    lines = [f"wrote {output}"]
    if form == "switchable":
        save(net if resolutions is None else subset(net, numbers(resolutions)), output)
    else:
        places = export_plain(net, form, output, sides, fold=fold_bn, aot=aot, force=force)
        lines = [f"wrote {place}" for place in places.values()]
        facts["files"] = {str(side): str(place) for side, place in places.items()}
        if fold_bn:
            reports = [fold_batchnorm(net.at(side), side)[1] for side in places]
            lines += map(str, reports)
            facts["folding"] = {str(report.resolution): asdict(report) for report in reports}
    print_result(facts, as_json, "\n".join(lines))
