"""The command report."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from rsconvert.cli.loading import load_baselines, load_network
from rsconvert.cli.options import (
    best_of,
    class_map_option,
    data_option,
    force_option,
    json_option,
    model_option,
    reading_options,
    refuse_existing,
    size_list,
)
from rsconvert.cli.printing import print_result

__all__ = ["report"]


@click.command()
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
@data_option
@click.option("-o", "--output", type=click.Path(), default="report.html", show_default=True, help="The file to write.")
@click.option(
    "--resolutions",
    metavar="LIST",
    help="Sides in pixels, as for evaluate; the trained ones and, where it works, those midway between.",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="[NAME=]FILE|MODEL",
    help="Another network to show beside, as for evaluate; may be repeated.",
)
@click.option("--examples", type=int, default=24, show_default=True, help="Images to show, drawn from all alike.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the drawing.")
@click.option(
    "--class-names",
    type=click.Path(),
    metavar="FILE",
    help="What to call each class folder: lines NAME LABEL, or a JSON object.",
)
@reading_options
@class_map_option
@model_option
@force_option
@json_option
def report(
    checkpoint: str,
    data: str,
    output: str,
    resolutions: str | None,
    baselines: tuple[str, ...],
    amp: str | None,
    workers: int | None,
    device: str | None,
    model: str | None,
    force: bool,
    as_json: bool,
    **showing: Any,
) -> None:
    """Write one HTML page about CHECKPOINT: accuracy, cost, and example images as each path sees and names them.

    The page needs no network. Of a RUN_DIR it shows the best checkpoint and the curves of the training.
    """
    source = best_of(checkpoint)
    refuse_existing(Path(output), force)
    from rsconvert.study import write_report

    net = load_network(source, model)
    facts = write_report(
        net,
        data,
        output,
        None if resolutions is None else size_list(resolutions),
        baselines=load_baselines(baselines, net, checkpoint, model),
        origin=checkpoint if Path(checkpoint, "best.safetensors") == Path(source) else source,
        command=shlex.join(["rsconvert", *sys.argv[1:]]),
        workers=2 if workers is None else workers,
        device=device,
        amp=amp,
        **showing,
        progress=not as_json,
    )
    size = Path(output).stat().st_size
    shown = len(facts["examples"]["images"])
    told = f"wrote {output}, {size / 1e6:.1f} MB: {len(facts['sizes'])} sizes, {shown} example images"
    print_result({"output": output, "bytes": size, **facts["evaluation"]}, as_json, told)
