"""The command evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsconvert.cli.loading import load_baselines, load_network
from rsconvert.cli.options import (
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
from rsconvert.errors import ConfigError

if TYPE_CHECKING:
    from rsconvert.evaluation import Evaluation, Predictions

__all__ = ["evaluate"]


@click.command()
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
@data_option
@click.option(
    "--resolutions",
    metavar="LIST",
    help="Sides in pixels, trained or not: 224,160, ranges 96:256:16, pairs HEIGHTxWIDTH; the trained ones.",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="[NAME=]FILE|MODEL",
    help="Another network to measure beside: a checkpoint, plain weights for the same architecture, a model's name; "
    "may be repeated.",
)
@click.option("--per-class", is_flag=True, help="Tell the top-1 of each class too.")
@click.option("-o", "--output", type=click.Path(), help="Write the table too: .csv with all figures, or .md.")
@click.option("--logits", type=click.Path(), metavar="FILE", help="Write all logits too, as safetensors.")
@reading_options
@class_map_option
@model_option
@force_option
@json_option
def evaluate(
    checkpoint: str,
    data: str,
    resolutions: str | None,
    baselines: tuple[str, ...],
    per_class: bool,
    output: str | None,
    logits: str | None,
    amp: str | None,
    workers: int | None,
    device: str | None,
    model: str | None,
    force: bool,
    as_json: bool,
    **reading: Any,
) -> None:
    """Measure CHECKPOINT at each resolution on the val/ images of DIR, and the ensemble of the trained ones.

    A resolution between trained ones runs on interpolated BatchNorm, one beyond them on the nearest set. An interval
    is Wilson's, of 95 %; a baseline's star is McNemar's test on the same images, p < 0.05. Under torchrun,
    -m rsconvert evaluate shares the images between the processes, and the first one prints the one result.
    """
    for path in (output, logits):
        if path is not None:
            refuse_existing(Path(path), force)
    if output is not None and Path(output).suffix not in (".csv", ".md"):
        raise ConfigError(f"output is {output}; a name in .csv or .md is accepted. Rename it, or take --json.")
    from rsconvert.evaluation import joined_processes, predict, with_baselines

    net = load_network(checkpoint, model)
    with joined_processes(device) as processes:
        found = predict(
            with_baselines(net, load_baselines(baselines, net, checkpoint, model)),
            data,
            net.resolutions if resolutions is None else size_list(resolutions),
            workers=2 if workers is None else workers,
            device=processes.device,
            amp=amp,
            **reading,
            keep_logits=logits is not None,
            progress=not as_json and processes.leads,
            processes=processes,
        )
    if processes.leads:
        _tell(found, output, logits, per_class, as_json)


def _tell(found: "Predictions", output: str | None, logits: str | None, per_class: bool, as_json: bool) -> None:
    from rsconvert.evaluation import save_logits, summarize

    if logits is not None:
        save_logits(found, logits)
    result = summarize(found, per_class=per_class)
    if output is not None:
        _write(result, output)
    print_result(result.to_dict(), as_json, str(result))


def _write(result: "Evaluation", output: str) -> None:
    from rsconvert.checkpoint import replacing

    with replacing(output) as part:
        part.write_text(result.as_csv() if Path(output).suffix == ".csv" else result.as_markdown(), encoding="utf-8")
