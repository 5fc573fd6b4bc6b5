"""The command cascade: small resolutions first, large ones for the images that they doubt."""

from pathlib import Path
from typing import Any

import click

from rsconvert.cli.loading import load_network, network_name
from rsconvert.cli.options import (
    best_of,
    class_map_option,
    data_option,
    force_option,
    json_option,
    model_option,
    reading_options,
    refuse_existing,
    resolution_list,
)
from rsconvert.cli.printing import print_result

__all__ = ["cascade"]


@click.command()
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
@data_option
@click.option(
    "--accuracy", "top1", type=float, metavar="X", help="Top-1 to reach, in percent; that of the best single path."
)
@click.option("--multiply-adds", type=float, metavar="M", help="Mean per image not to exceed, such as 30e6, instead.")
@click.option(
    "--resolutions",
    metavar="LIST",
    help="Paths to try: 224,160, ranges 96:224:16; the trained ones and every 16 pixels between.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the two halves.")
@reading_options
@class_map_option
@click.option("-o", "--output", type=click.Path(), help="The file to write; NAME.cascade.safetensors.")
@model_option
@force_option
@json_option
def cascade(
    checkpoint: str,
    data: str,
    resolutions: str | None,
    amp: str | None,
    workers: int | None,
    device: str | None,
    output: str | None,
    model: str | None,
    force: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Fit a cascade for CHECKPOINT on one half of the val/ images of DIR, and measure it on the other half.

    Each image runs at a small resolution first, and at a larger one if the answer is not confident enough. Writes a
    checkpoint that holds the cascade, for rsconvert.cascade(net, images).
    """
    source = best_of(checkpoint)
    target = Path(f"{network_name(source)}.cascade.safetensors" if output is None else output)
    refuse_existing(target, force)
    from rsconvert import save
    from rsconvert.runtime import fit_cascade

    net = load_network(source, model)
    report = fit_cascade(
        net,
        data,
        resolutions=None if resolutions is None else resolution_list(resolutions),
        workers=2 if workers is None else workers,
        device=device,
        amp=amp,
        **settings,
        progress=not as_json,
    )
    save(net, target)
    print_result({"checkpoint": str(target), **report.to_dict()}, as_json, f"{report}\nwrote {target}")
