"""The commands below analyze: the paper's tables and figures, each a figure, its data and a table in a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsconvert.cli.loading import load_among, load_baselines, load_network, network_name
from rsconvert.cli.options import (
    class_map_option,
    data_option,
    floats,
    force_option,
    json_option,
    model_option,
    options,
    reading_options,
    refuse_existing,
    resolution_list,
)
from rsconvert.cli.printing import print_result
from rsconvert.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rsconvert.surgery import SwitchableModel

__all__ = ["analyze"]

_checkpoint = click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
_baseline = click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="[NAME=]FILE|MODEL",
    help="Another network beside it, as of evaluate; may be repeated.",
)
_images = options(
    data_option,
    reading_options,
)
_output = options(
    click.option(
        "-o",
        "--output",
        type=click.Path(),
        default="analysis",
        show_default=True,
        help="Folder for NAME.png, .svg, .csv (the figure's data) and .md (the table).",
    ),
    force_option,
    json_option,
)


@click.group()
def analyze() -> None:
    """Draw the paper's tables and figures of your own networks and images."""


@analyze.command()
@click.argument("checkpoints", type=click.Path(), metavar="CHECKPOINT|RUN_DIR...", nargs=-1, required=True)
@_baseline
@_images
@class_map_option
@model_option
@_output
def complementarity(
    checkpoints: tuple[str, ...],
    baselines: tuple[str, ...],
    model: str | None,
    output: str,
    force: bool,
    as_json: bool,
    **reading: Any,
) -> None:
    """Count what one resolution gets right and another wrong (Table 1).

    One CHECKPOINT is compared at its trained resolutions, several each at its native one: a set of I-Nets. Baselines
    make a second matrix; RESOLUTION=FILE chooses the resolution of one.
    """
    stem = _stem(output, "complementarity", force)
    from rsconvert import study

    load = load_network if len(checkpoints) == 1 else load_among
    nets = {network_name(place): load(place, model) for place in checkpoints}
    if len(nets) < len(checkpoints):
        raise ConfigError(f"checkpoints are {', '.join(checkpoints)}; each needs a name of its own. Rename one.")
    first = next(iter(nets.values()))
    beside = load_baselines(baselines, first, checkpoints[0], model)
    computing = _computing(reading, as_json)
    groups: dict[str, study.Complementarity] = {}
    for networks in (beside, nets):
        if networks:
            title = next(iter(networks)) if len(networks) == 1 else "I-Nets"
            right = study.right_answers(study.own_resolutions(networks), **computing)
            groups[f"{title} (network)" if title in groups else title] = study.complementarity(right)
    tables = {title: group.table() for title, group in groups.items()}
    facts = {title: group.to_dict() for title, group in groups.items()}
    markdown = "\n\n".join(f"**{title}**\n\n{table.as_markdown()}" for title, table in tables.items())
    text = "\n\n".join(f"{title}\n{table.as_text()}" for title, table in tables.items())
    csv = study.complementarity_data(groups).as_csv()
    _finish(stem, study.plot_complementarity(groups), csv, markdown, facts, text, as_json)


@analyze.command()
@_checkpoint
@_baseline
@click.option(
    "--resolutions",
    metavar="LIST",
    help="Sides in pixels and ranges 96:256:16; every 16 between the trained ones, and these.",
)
@_images
@class_map_option
@model_option
@_output
def accuracy(
    checkpoint: str,
    baselines: tuple[str, ...],
    resolutions: str | None,
    model: str | None,
    output: str,
    force: bool,
    as_json: bool,
    **reading: Any,
) -> None:
    """Draw accuracy over the resolution and over multiply-adds (figures 1 and 4).

    The band and the bars are Wilson's intervals of 95 %. Baselines that were wrapped for one resolution are I-Nets.
    """
    stem = _stem(output, "accuracy", force)
    from rsconvert import evaluate, study
    from rsconvert.surgery import SwitchableModel

    net = load_network(checkpoint, model)
    beside = load_baselines(baselines, net, checkpoint, model)
    trained = {r for one in (net, *beside.values()) if isinstance(one, SwitchableModel) for r in one.resolutions}
    asked = study.dense_resolutions(sorted(trained)) if resolutions is None else resolution_list(resolutions)
    result = evaluate(net, resolutions=asked, baselines=beside, **_computing(reading, as_json))
    figure = study.plot_accuracy({network_name(checkpoint): result, **result.baselines})
    _finish(stem, figure, result.as_csv(), result.as_markdown(), result.to_dict(), str(result), as_json)


@analyze.command()
@_checkpoint
@model_option
@_output
def batchnorm(checkpoint: str, model: str | None, output: str, force: bool, as_json: bool) -> None:
    """Draw γ, β, μ, σ² by layer and resolution (figure 6). Needs no images."""
    stem = _stem(output, "batchnorm", force)
    from rsconvert.study import batchnorm_sets, plot_batchnorm

    result = batchnorm_sets(load_network(checkpoint, model))
    table = result.table()
    csv = result.data().as_csv()
    _finish(stem, plot_batchnorm(result), csv, table.as_markdown(), result.to_dict(), table.as_text(), as_json)


@analyze.command()
@_checkpoint
@click.option("--resolutions", metavar="LIST", help="Sides in pixels, trained or not; the trained ones.")
@click.option(
    "--crop-area",
    "crop_areas",
    multiple=True,
    metavar="MIN,MAX",
    help="Share of the image in a crop of training; may be repeated to compare (Fig. 9). The network's own, or 0.08,1.",
)
@click.option("--images", type=int, default=1000, show_default=True, help="How many of val/ to draw.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the drawing and the crops."
)
@_images
@model_option
@_output
def pooling(
    checkpoint: str,
    resolutions: str | None,
    crop_areas: tuple[str, ...],
    model: str | None,
    output: str,
    force: bool,
    as_json: bool,
    **reading: Any,
) -> None:
    """Draw the values at the global pooling, under views of training and of evaluation (figure 3).

    Both are cut out of the same images of val/.
    """
    stem = _stem(output, "pooling", force)
    from rsconvert.study import plot_pooling, pooled_values

    net = load_network(checkpoint, model)
    asked = None if resolutions is None else resolution_list(resolutions)
    areas = [_area(text) for text in crop_areas] or [_own_area(net)]
    result = pooled_values(net, resolutions=asked, crop_areas=areas, **_computing(reading, as_json))
    table = result.table()
    csv = result.data().as_csv()
    _finish(stem, plot_pooling(result), csv, table.as_markdown(), result.to_dict(), table.as_text(), as_json)


@analyze.command()
@click.argument("runs", type=click.Path(), metavar="RUN_DIR...", nargs=-1, required=True)
@_output
def importance(runs: tuple[str, ...], output: str, force: bool, as_json: bool) -> None:
    """Draw the importance scores over the epochs of finetuning (Appendix A); of several runs mean ± deviation."""
    stem = _stem(output, "importance", force)
    from rsconvert import study

    result = study.importance(runs)
    table = result.table()
    figure = study.plot_importance(result)
    _finish(stem, figure, table.as_csv(), table.as_markdown(), result.to_dict(), table.as_text(), as_json)


def _stem(output: str, name: str, force: bool) -> Path:
    """Return the path of what a command writes, without its endings, none of which exists."""
    from rsconvert.study import ENDINGS

    for ending in ENDINGS if Path(output).exists() else ():
        refuse_existing(Path(output, name + ending), force)
    return Path(output, name)


def _computing(reading: dict[str, Any], as_json: bool) -> dict[str, Any]:
    """Return the options of images as the library takes them."""
    workers = 2 if reading["workers"] is None else reading["workers"]
    return {**reading, "workers": workers, "progress": not as_json}


def _area(text: str) -> tuple[float, float]:
    area = floats("crop_area", text, "0.08,1") or ()
    if len(area) != 2:
        raise ConfigError(f"crop_area is {text}; a smallest and a largest share such as 0.08,1 are needed. Correct it.")
    return area[0], area[1]


def _own_area(net: "SwitchableModel") -> tuple[float, float]:
    """Return the range that the network was finetuned with, or the paper's."""
    low, high = (net.source.training or {}).get("crop_area", (0.08, 1.0))
    return low, high


def _finish(
    stem: Path, figure: "Figure", csv: str, markdown: str, facts: dict[str, Any], text: str, as_json: bool
) -> None:
    """Write what an analysis found, and print it."""
    from rsconvert.study import write_analysis

    files = [str(file) for file in write_analysis(stem, figure, csv=csv, markdown=markdown)]
    print_result({**facts, "files": files}, as_json, f"{text}\nwrote {', '.join(files)}")
