"""Commands about a network's results: report, and below analyze the paper's tables and figures."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from rsconvert.cli import options
from rsconvert.cli.loading import load_baselines, load_network, network_name
from rsconvert.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rsconvert.data import Split
    from rsconvert.text import Table


__all__ = ["analyze", "report"]


class _Pooled(options.Reading):
    """The options of `pooling` that say which images are read, and how."""

    amp: str | None
    split: "Split | float"


_output = options.bundle(
    options.output(
        "Folder for NAME.png, .svg, .csv (the figure's data) and .md (the table).",
        default="analysis",
        show_default=True,
    ),
    options.force,
    options.as_json,
)
_drawing_output = options.bundle(options.model, _output)


@click.command(short_help="Write one HTML page about a network.")
@options.checkpoint
@options.data
@options.output("The file to write.", default="report.html", show_default=True)
@options.resolutions(
    "Sides in pixels, as for evaluate; the trained ones and, where it works, those midway between.", options.size_list
)
@options.baselines
@options.defaulted(
    "study.write_report",
    "--examples",
    type=int,
    help="Images to show, drawn from all alike; half as many mistakes are added for the filter.",
)
@options.seed("study.write_report", "Of the drawing.")
@click.option(
    "--class-names",
    type=click.Path(),
    metavar="FILE",
    help="What to call each class folder: lines NAME LABEL, or a JSON object; of masks one name a line.",
)
@options.labelled
@options.settings("label_offset", "resize")
@options.result
def report(
    checkpoint: str,
    data: str,
    output: str,
    resolutions: tuple[Any, ...] | None,
    baselines: tuple[str, ...],
    examples: int,
    seed: int,
    class_names: str | None,
    label_offset: int | None,
    resize: str | None,
    model: str | None,
    force: bool,
    as_json: bool,
    **reading: Unpack[options.Labelled],
) -> None:
    """Write one HTML page about CHECKPOINT: accuracy, cost, and example images with the predictions of each path.

    The page needs no network. Of a RUN_DIR it shows the best checkpoint and the curves of the training.
    """
    from rsconvert.study import write_report

    options.refuse_existing(output, force)
    net = load_network(checkpoint, model)
    facts = write_report(
        net,
        data,
        output,
        resolutions,
        baselines=load_baselines(baselines, net, model),
        examples=examples,
        seed=seed,
        class_names=class_names,
        masks=options.mask_reading(label_offset, resize),
        origin=checkpoint,
        command=shlex.join(["rsconvert", *sys.argv[1:]]),
        progress=not as_json,
        **reading,
    )
    for line in facts["doubts"]:
        options.log(f"note: {line}")
    size = Path(output).stat().st_size
    drawn = facts["examples"]
    shown = f"{len(facts['sizes'])} sizes, {len(drawn['images'])} example images"
    if drawn["mistakes"]:
        shown += f", {len(drawn['mistakes'])} more of the mistakes"
    text = f"wrote {output}, {size / 1e6:.1f} MB: {shown}"
    options.print_result({"output": output, "bytes": size, **facts["evaluation"]}, as_json, text)


@click.group(short_help="Draw the paper's tables and figures of your networks.")
def analyze() -> None:
    """Draw the paper's tables and figures of your own networks and images."""


@analyze.command()
@click.argument("checkpoints", type=click.Path(), metavar="CHECKPOINT|RUN_DIR...", nargs=-1, required=True)
@options.baselines
@options.data
@options.labelled
@_drawing_output
def complementarity(
    checkpoints: tuple[str, ...],
    data: str,
    baselines: tuple[str, ...],
    model: str | None,
    output: str,
    force: bool,
    as_json: bool,
    **reading: Unpack[options.Labelled],
) -> None:
    """Count what one resolution gets right and another wrong (Table 1).

    One CHECKPOINT is compared at its trained resolutions, several each at its native one: a set of I-Nets. Baselines
    make a second matrix; RESOLUTION=FILE chooses the resolution of one.
    """
    stem = _stem(output, "complementarity", force)
    from rsconvert import study
    from rsconvert.checkpoint import load_among

    load = load_network if len(checkpoints) == 1 else load_among
    nets = {network_name(place): load(place, model) for place in checkpoints}
    if len(nets) < len(checkpoints):
        raise ConfigError(f"checkpoints are {', '.join(checkpoints)}; each needs a name of its own. Rename one.")
    others = load_baselines(baselines, next(iter(nets.values())), model)
    groups = study.complementarity_of((others, nets), data, progress=not as_json, **reading)
    tables = {title: group.table() for title, group in groups.items()}
    _finish(
        stem,
        study.plot_complementarity(groups),
        as_json,
        facts={title: group.to_dict() for title, group in groups.items()},
        text="\n\n".join(f"{title}\n{table.as_text()}" for title, table in tables.items()),
        markdown="\n\n".join(f"**{title}**\n\n{table.as_markdown()}" for title, table in tables.items()),
        csv=study.complementarity_data(groups).as_csv(),
    )


@analyze.command()
@options.checkpoint
@options.baselines
@options.resolutions("Sides in pixels and ranges 96:256:16; every 16 between the trained ones, and these.")
@options.data
@options.labelled
@options.masks
@_drawing_output
def accuracy(
    checkpoint: str,
    data: str,
    baselines: tuple[str, ...],
    resolutions: tuple[int, ...] | None,
    label_offset: int | None,
    class_names: str | None,
    resize: str | None,
    model: str | None,
    output: str,
    force: bool,
    as_json: bool,
    **reading: Unpack[options.Labelled],
) -> None:
    """Draw accuracy over the resolution and over multiply-adds (figures 1 and 4).

    The band and the bars are Wilson's intervals of 95 %; of masks, those of the bootstrap over images. Baselines that
    were wrapped for one resolution are I-Nets.
    """
    stem = _stem(output, "accuracy", force)
    from rsconvert import evaluate, study
    from rsconvert.surgery import SwitchableModel

    net = load_network(checkpoint, model)
    others = load_baselines(baselines, net, model)
    trained = {r for one in (net, *others.values()) if isinstance(one, SwitchableModel) for r in one.resolutions}
    sides = study.dense_resolutions(sorted(trained)) if resolutions is None else resolutions
    masks = options.mask_reading(label_offset, resize, class_names)
    result = evaluate(net, data, sides, baselines=others, masks=masks, progress=not as_json, **reading)
    _finish(
        stem,
        study.plot_accuracy({network_name(checkpoint): result, **result.baselines}),
        as_json,
        facts=result.to_dict(),
        text=str(result),
        markdown=result.as_markdown(),
        csv=result.as_csv(),
    )


@analyze.command()
@options.checkpoint
@_drawing_output
def batchnorm(checkpoint: str, model: str | None, output: str, force: bool, as_json: bool) -> None:
    """Draw γ, β, μ, σ² by layer and resolution (figure 6). Needs no images."""
    stem = _stem(output, "batchnorm", force)
    from rsconvert.study import batchnorm_sets, plot_batchnorm

    result = batchnorm_sets(load_network(checkpoint, model))
    _finish_table(stem, plot_batchnorm(result), as_json, result.to_dict(), result.table(), result.data())


@analyze.command()
@options.checkpoint
@options.resolutions("Sides in pixels, trained or not; the trained ones.")
@click.option(
    "--crop-area",
    "crop_areas",
    multiple=True,
    metavar="MIN,MAX",
    help="Share of the image in a crop of training; may be repeated to compare (Fig. 9). The network's own, or 0.08,1.",
)
@options.defaulted("study.pooled_values", "--images", type=int, help="How many of val/ to draw.")
@options.seed("study.pooled_values", "Of the drawing and the crops.")
@options.data
@options.reading
@options.amp
@options.split
@_drawing_output
def pooling(
    checkpoint: str,
    data: str,
    resolutions: tuple[int, ...] | None,
    crop_areas: tuple[str, ...],
    images: int,
    seed: int,
    model: str | None,
    output: str,
    force: bool,
    as_json: bool,
    **reading: Unpack[_Pooled],
) -> None:
    """Draw the values at the global pooling, under views of training and of evaluation (figure 3).

    Both are cut out of the same images of val/.
    """
    stem = _stem(output, "pooling", force)
    from rsconvert.study import plot_pooling, pooled_values

    net = load_network(checkpoint, model)
    low, high = (net.source.training or {}).get("crop_area", (0.08, 1.0))
    areas = [_area(text) for text in crop_areas] or [(low, high)]
    result = pooled_values(
        net, data, resolutions, crop_areas=areas, images=images, seed=seed, progress=not as_json, **reading
    )
    _finish_table(stem, plot_pooling(result), as_json, result.to_dict(), result.table(), result.data())


@analyze.command()
@click.argument("runs", type=click.Path(), metavar="RUN_DIR...", nargs=-1, required=True)
@_output
def importance(runs: tuple[str, ...], output: str, force: bool, as_json: bool) -> None:
    """Draw the importance scores over the epochs of finetuning (Appendix A); of several runs mean ± deviation."""
    stem = _stem(output, "importance", force)
    from rsconvert import study

    result = study.importance(runs)
    table = result.table()
    _finish_table(stem, study.plot_importance(result), as_json, result.to_dict(), table, table)


def _stem(output: str, name: str, force: bool) -> Path:
    """Return the path of the files that a command writes, without their endings; none of them exists."""
    from rsconvert.study import ENDINGS

    for ending in ENDINGS if Path(output).exists() else ():
        options.refuse_existing(Path(output, name + ending), force)
    return Path(output, name)


def _area(text: str) -> tuple[float, float]:
    area = options.floats("crop_area", text, "0.08,1")
    if len(area) != 2:
        raise ConfigError(f"crop_area is {text}; a smallest and a largest share such as 0.08,1 are needed.")
    return area[0], area[1]


def _finish_table(
    stem: Path, figure: "Figure", as_json: bool, facts: dict[str, Any], table: "Table", data: "Table"
) -> None:
    _finish(stem, figure, as_json, facts=facts, text=table.as_text(), markdown=table.as_markdown(), csv=data.as_csv())


def _finish(
    stem: Path, figure: "Figure", as_json: bool, *, facts: dict[str, Any], text: str, markdown: str, csv: str
) -> None:
    """Write what an analysis found, and print it."""
    from rsconvert.study import write_analysis

    files = [str(file) for file in write_analysis(stem, figure, csv=csv, markdown=markdown)]
    options.print_result({**facts, "files": files}, as_json, f"{text}\nwrote {', '.join(files)}")
