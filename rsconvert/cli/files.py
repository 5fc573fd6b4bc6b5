"""Commands that read a file: inspect, verify."""

import click

from rsconvert.cli import options
from rsconvert.cli.loading import load_network

__all__ = ["inspect", "verify"]


@click.command(short_help="Show what a switchable file holds.")
@options.checkpoint
@options.as_json
def inspect(checkpoint: str, as_json: bool) -> None:
    """Show what a switchable CHECKPOINT holds, without building its network."""
    from rsconvert.checkpoint import describe, file_of, inspection_text

    facts = describe(file_of(checkpoint))
    options.print_result(facts, as_json, inspection_text(facts))


@click.command(short_help="Compare an exported file with its network.")
@click.argument("export", type=click.Path())
@options.checkpoint
@options.resolutions(
    "Sides in pixels and ranges 96:256:16; the default is the export's own, else the trained ones, those midway, those "
    "that an ONNX file has branches for, and one that it has none for."
)
@options.unlabelled(required=False)
@options.defaulted("export.verify_export", "--images", type=int, help="How many to draw from the data.")
@click.option(
    "--tolerance",
    type=float,
    help="The largest relative difference; 1e-4, of a float16 file 1e-2, of an int8 file 2.",
)
@click.option(
    "--native-code",
    is_flag=True,
    help="Run the library in a .pt2 that AOTInductor compiled: it acts with your rights. Only if you trust its maker.",
)
@options.model
@options.as_json
def verify(
    export: str,
    checkpoint: str,
    resolutions: tuple[int, ...] | None,
    data: str | None,
    images: int,
    tolerance: float | None,
    native_code: bool,
    model: str | None,
    as_json: bool,
) -> None:
    """Compare EXPORT with the network of CHECKPOINT, on random images and those of DIR.

    EXPORT is a file in .onnx or .pt2, a folder of timm or for a hub, or a state_dict of torchvision. The exit status
    is 0 if the logits and the classes agree at every resolution, else 1. With DIR a float16 or int8 file also fails
    if the 95 % interval of the share of photos that get the network's class ends below 99 or 90 %.
    """
    from rsconvert.export import verify_export

    if data is None:
        options.refuse_given("images", without="data")
    net = load_network(checkpoint, model)
    found = verify_export(
        export, net, resolutions, data=data, images=images, tolerance=tolerance, native_code=native_code
    )
    options.print_result(found.to_dict(), as_json, found)
    found.check(export)
