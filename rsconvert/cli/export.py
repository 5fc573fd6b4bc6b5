"""The command export: a network for others."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from rsconvert.cli.loading import load_network
from rsconvert.cli.options import numbers, print_result, ranges, refuse_existing, result
from rsconvert.errors import ConfigError
from rsconvert.text import read_json

if TYPE_CHECKING:
    from rsconvert.surgery import SwitchableModel

__all__ = ["export"]

_Written = tuple[dict[str, Any], object]  # what --json adds, and what is printed without it

# Each option with the formats in which it has an effect.
_TAKEN_BY = {
    "resolutions": ("switchable",),
    "resolution": ("timm", "torchvision", "program", "onnx"),
    "fold_bn": ("timm", "torchvision", "program"),
    "aot": ("program",),
    "branches": ("onnx",),
    "compact": ("onnx",),
    "shared_weights": ("onnx",),
    "fp16": ("onnx",),
    "int8": ("onnx",),
    "reduce_range": ("onnx",),
    "results": ("hub",),
    "licence": ("hub",),
    "push": ("hub",),
}


@click.command(short_help="Write the network for ONNX, timm, torchvision or a hub.")
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
@click.option(
    "--format",
    "form",
    type=click.Choice(["switchable", "timm", "torchvision", "program", "onnx", "hub"]),
    default="switchable",
    show_default=True,
)
@click.option(
    "--resolution",
    metavar="LIST|all",
    help="Side in pixels of the plain network, trained or not; each of several gets a file, NAME-160.SUFFIX.",
)
@click.option("--resolutions", help="The sets to keep in a switchable file; the default is all.")
@click.option(
    "--fold-bn",
    is_flag=True,
    help="Fold BatchNorm into convolutions, where exact; onnx with --resolution does so unasked.",
)
@click.option("--aot", is_flag=True, help="program: compile it for this processor, by AOTInductor.")
@click.option(
    "--branches",
    metavar="LIST",
    help="onnx that switches: sizes, and ranges 96:224:16, as fast as in a plain file, each for a copy of the weights "
    "in memory; the default is the trained ones and those midway.",
)
@click.option(
    "--compact", is_flag=True, help="onnx that switches: weights once in memory, slower; no branches but of int8."
)
@click.option("--shared-weights", is_flag=True, help="onnx of several resolutions: one file of weights for all.")
@click.option("--fp16", is_flag=True, help="onnx: weights and arithmetic in float16; input and output stay float32.")
@click.option("--int8", is_flag=True, help="onnx: in int8, by the ranges that rsconvert quantize measured.")
@click.option("--reduce-range", is_flag=True, help="int8: weights of 7 bits, for x86 processors without VNNI.")
@click.option("--results", type=click.Path(), metavar="FILE", help="hub: what evaluate --json printed, for the card.")
@click.option("--licence", metavar="TEXT", help="hub: of the source weights; the default is what timm says of them.")
@click.option("--push", metavar="USER/NAME", help="hub: upload the folder to this repository, made if there is none.")
@click.option("-o", "--output", required=True, type=click.Path(), help="File, or folder for timm and hub.")
@result
def export(
    checkpoint: str,
    form: str,
    output: str,
    model: str | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the network of CHECKPOINT, or the best one of RUN_DIR, for others.

    switchable: one clean file. timm: a folder that timm opens as local-dir:FOLDER. torchvision: a state_dict. program:
    a file that torch.export.load opens. onnx: one file that chooses its BN set by the size of its input, BatchNorm
    folded with --resolution. hub: a folder to publish, with a model card, the switchable file and the native network.
    With --fold-bn timm's and torchvision's need a few lines more to load.
    """
    _check_options(form, options)
    several = options["resolution"] == "all" or "," in (options["resolution"] or "")
    if form != "onnx" and not several:  # of which the library checks each
        refuse_existing(Path(output), force, may_be_folder=True)
    net = load_network(checkpoint, model)
    write = {"switchable": _switchable, "onnx": _onnx, "hub": _hub}.get(form, _plain)
    facts, written = write(net, form, output, options, force)
    print_result({"output": output, "format": form, **facts}, as_json, str(written))


def _check_options(form: str, options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value not in (None, False) and form not in _TAKEN_BY[name]:
            told = "set" if value is True else value or "empty"
            raise ConfigError(
                f"{name.replace('_', '-')} is {told} for the format {form}; it has an effect on "
                f"{', '.join(_TAKEN_BY[name])} alone. Leave it out, or choose another format."
            )
    if options["resolution"] is None and form in _TAKEN_BY["fold_bn"]:
        raise ConfigError(
            f"the format {form} has no resolution; a plain network needs one. Give it by --resolution, such as 160."
        )


def _switchable(net: "SwitchableModel", form: str, output: str, options: dict[str, Any], force: bool) -> _Written:
    from rsconvert import save
    from rsconvert.checkpoint import subset

    kept = options["resolutions"]
    net = net if kept is None else subset(net, numbers(kept))
    save(net, output)
    sides = ", ".join(map(str, net.resolutions))
    return {"resolutions": list(net.resolutions)}, f"wrote {output} (switches between {sides} pixels)"


def _onnx(net: "SwitchableModel", form: str, output: str, options: dict[str, Any], force: bool) -> _Written:
    from rsconvert import export_onnx

    text, branches = options["resolution"], options["branches"]
    sides = None if text is None else list(net.resolutions) if text == "all" else numbers(text)
    exported = export_onnx(
        net,
        output,
        sides,
        branches=None if branches is None else ranges(branches, "branches"),
        compact=options["compact"],
        shared_weights=options["shared_weights"],
        precision=_precision(options),
        reduce_range=options["reduce_range"],
        force=force,
    )
    return {
        "resolution": sides[0] if sides and len(sides) == 1 else sides,
        "files": {str(path): found.to_dict() for path, found in exported.verification.items()},
        **({"weights": str(exported.weights)} if exported.weights else {}),
    }, exported


def _precision(options: dict[str, Any]) -> Literal["float32", "float16", "int8"]:
    if options["fp16"] and options["int8"]:
        raise ConfigError("fp16 is set, and int8; a file has one precision. Leave one out.")
    return "float16" if options["fp16"] else "int8" if options["int8"] else "float32"


def _hub(net: "SwitchableModel", form: str, output: str, options: dict[str, Any], force: bool) -> _Written:
    from rsconvert import export_hub

    path = options["results"]
    try:
        # The library checks what it is.
        results = None if path is None else read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"results {path} can't be read ({error}); what evaluate --json prints is needed. Check the path."
        ) from error
    exported = export_hub(net, output, results=results, licence=options["licence"], push=options["push"], force=force)
    facts = {"left_open": list(exported.left_open), "address": exported.address}
    return {"resolutions": list(net.resolutions), **facts}, exported


def _plain(net: "SwitchableModel", form: str, output: str, options: dict[str, Any], force: bool) -> _Written:
    from rsconvert.export import export_plain

    text = options["resolution"]
    sides = list(net.resolutions) if text == "all" else numbers(text)
    exported = export_plain(net, form, output, sides, fold=options["fold_bn"], aot=options["aot"], force=force)
    written = [*exported.files.values()]
    folding = {str(report.resolution): asdict(report) for report in exported.folding.values()}
    return {
        "resolution": written if len(written) > 1 else written[0],
        "files": {str(side): str(path) for path, side in exported.files.items()},
        **({"folding": folding} if folding else {}),
    }, exported
