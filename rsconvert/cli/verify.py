"""The command verify: an export against the checkpoint that it came from."""

import click

from rsconvert.cli.loading import load_network
from rsconvert.cli.options import json_option, model_option, resolution_list
from rsconvert.cli.printing import print_result
from rsconvert.errors import ConfigError

__all__ = ["verify"]


@click.command()
@click.argument("export", type=click.Path())
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
@click.option(
    "--resolutions",
    metavar="LIST",
    help="Sides in pixels and ranges 96:256:16; the default is the export's own, else the trained ones, those midway, "
    "those that an ONNX file has branches for, and one that it has none for.",
)
@click.option(
    "--data",
    metavar="DIR",
    help="Folder of images, of whose train/ if it has one, or a timm data-set string; labels are not needed.",
)
@click.option("--images", type=int, help="How many to draw from the data (200).")
@click.option("--tolerance", type=float, default=1e-4, show_default=True, help="The largest relative difference.")
@model_option
@json_option
def verify(
    export: str,
    checkpoint: str,
    resolutions: str | None,
    data: str | None,
    images: int | None,
    tolerance: float,
    model: str | None,
    as_json: bool,
) -> None:
    """Compare EXPORT with the network of CHECKPOINT, on random images and those of DIR.

    EXPORT is a file in .onnx or .pt2, a folder of timm or for a hub, or a state_dict of torchvision. The exit status
    is 0 if the logits and the classes agree at every resolution, else 1.
    """
    from rsconvert.export import verify_export

    if images is not None and data is None:
        raise ConfigError(f"images is {images} without data; a folder to draw them from is needed. Give --data.")
    net = load_network(checkpoint, model)
    asked = None if resolutions is None else resolution_list(resolutions)
    result = verify_export(export, net, asked, data=data, images=200 if images is None else images, tolerance=tolerance)
    print_result(result.to_dict(), as_json, str(result))
    result.check(export)
