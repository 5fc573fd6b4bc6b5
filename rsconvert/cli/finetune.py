"""The command finetune."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from rsconvert.cli.loading import load_network
from rsconvert.cli.options import (
    compute_options,
    data_option,
    force_option,
    json_option,
    model_option,
    options,
    settings_options,
    strings,
)
from rsconvert.cli.printing import log_epoch, log_loading, plain, print_result, row_line
from rsconvert.errors import ConfigError

if TYPE_CHECKING:
    from rsconvert.settings import FinetuneConfig
    from rsconvert.surgery import SwitchableModel

__all__ = ["finetune"]

_method_options = options(
    click.option("--epochs", type=int, help="Passes over the training images; 10."),
    click.option("--batch-size", type=int, help="Images of a forward in each process; 32."),
    click.option(
        "--lr",
        type=float,
        help="Peak rate for the summed loss of S views: an ordinary rate / S; 0.005 * images per step / 32 / S.",
    ),
    click.option(
        "--distill", type=click.Choice(["full", "vanilla", "top-down", "largest", "none"]), help="Distillation; full."
    ),
    click.option(
        "--labels", type=click.Choice(["data", "none"]), help="none: no labels, the network as it starts teaches; data."
    ),
    click.option("--teacher", metavar="MODEL", help="A model, checkpoint or RUN_DIR in the ensemble's place."),
    click.option("--class-map", type=click.Path(), metavar="FILE", help="The network's output for each class folder."),
    click.option(
        "--train",
        type=click.Choice(["all", "bn", "head"]),
        help="What learns: all, the smaller BN sets, the classifier; all.",
    ),
    click.option("--seed", type=int, help="Of the order, the crops, dropout; 0."),
)
_machine_options = options(
    compute_options,
    click.option(
        "--compile",
        is_flag=False,
        flag_value="default",
        type=click.Choice(["off", "default", "reduce-overhead", "max-autotune"]),
        help="Compile each path, in torch's mode if one is named.",
    ),
    click.option("--low-memory", is_flag=True, default=None, help="The memory of the largest view, for more time."),
    click.option("--grad-checkpointing", is_flag=True, default=None, help="The model's activation checkpointing."),
    click.option("--sync-bn", is_flag=True, default=None, help="BatchNorm statistics over all processes, on GPUs."),
    click.option("--log-dir", type=click.Path(), metavar="DIR", help="Folder for TensorBoard."),
)


@click.command()
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
@data_option
@click.option(
    "--output", required=True, type=click.Path(), metavar="RUN_DIR", help="Folder for checkpoints and summary.csv."
)
@_method_options
@_machine_options
@settings_options
@click.option("--resume", is_flag=True, help="Go on from the newest state in RUN_DIR, bit for bit.")
@click.option("--dry-run", is_flag=True, help="Print settings, steps and an estimate of the memory; train nothing.")
@model_option
@force_option
@json_option
def finetune(
    checkpoint: str,
    data: str,
    output: str,
    recipe: str | None,
    config: str | None,
    settings: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    model: str | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train all resolutions of CHECKPOINT together on labelled images.

    An option overrides --set, which overrides --config, which overrides --recipe. Under torchrun, -m rsconvert finetune
    trains in all processes together.
    """
    from rsconvert.evaluation import launched_rank
    from rsconvert.settings import RECIPES, build_config

    given = {key: value for key, value in options.items() if value is not None}
    if not output:
        raise ConfigError("output is empty; a folder for the run is needed. Give one by --output.")
    resolved = build_config(config, {**strings(settings), **given}, recipe)
    if recipe is not None and not as_json:
        told = "  ".join(f"{key}={plain(value)}" for key, value in RECIPES[recipe].items())
        click.echo(f"recipe {recipe}: {told or 'the defaults'}", err=True)
    net = load_network(checkpoint, model)
    if launched_rank() == 0:
        log_loading(net)
    if dry_run:
        _preview(net, data, resolved, as_json)
    else:
        _train(net, data, output, resolved, as_json, {"resume": resume, "force": force})


def _preview(net: "SwitchableModel", data: str, config: "FinetuneConfig", as_json: bool) -> None:
    from rsconvert.evaluation import launched_rank
    from rsconvert.training import preview

    facts = preview(net, data, config)
    if launched_rank() != 0:
        return
    memory = ", ".join(f"{part} {size / 2**20:.1f}" for part, size in facts["memory"].items())
    lines = [f"{key}: {plain(value)}" for key, value in facts.items() if key != "memory"]
    print_result(facts, as_json, "\n".join([*lines, f"memory (MiB): {memory}"]))


def _train(
    net: "SwitchableModel", data: str, output: str, config: "FinetuneConfig", as_json: bool, how: Mapping[str, bool]
) -> None:
    from rsconvert.evaluation import launched_rank
    from rsconvert.training import finetune as train
    from rsconvert.training import keep_freed_memory

    if not config.low_memory:  # what is kept is memory too
        keep_freed_memory()

    def log(row: Mapping[str, Any]) -> None:
        log_epoch(row, config.epochs)

    if config.compile != "off" and launched_rank() == 0:
        click.echo("each path is compiled when it first runs, which takes a minute or more", err=True)
    result = train(net, data, output, config, **how, progress=not as_json, on_epoch=log)
    if launched_rank() == 0:
        told = f"{output}: best.safetensors, last.safetensors, summary.csv, config.json\nbest: epoch {result.best}"
        facts = {"output": output, "epochs": list(result), "best": result.best}
        print_result(facts, as_json, f"{told}, {row_line(result.best_row)}")
