"""Commands that train: finetune, compare, demo."""

import shlex
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from rsconvert.cli import options
from rsconvert.cli.loading import load_network, log_loading
from rsconvert.errors import ConfigError
from rsconvert.recipes import RECIPES, build_config
from rsconvert.settings import FinetuneConfig
from rsconvert.text import plain

if TYPE_CHECKING:
    from rsconvert.study import Plan
    from rsconvert.surgery import SwitchableModel
    from rsconvert.training import Row

__all__ = ["compare", "demo", "finetune"]


@click.command(short_help="Train all resolutions together.")
@options.checkpoint
@options.data
@click.option(
    "--output", required=True, type=click.Path(), metavar="RUN_DIR", help="Folder for checkpoints and summary.csv."
)
@options.settings("epochs", "batch_size", "views", "lr", "distill", "labels", "teacher", "class_map", "train", "bits")
@options.settings(
    "split", "seed", "amp", "workers", "device", "compile", "low_memory", "grad_checkpointing", "sync_bn", "log_dir"
)
@options.masks
@options.config
@click.option("--resume", is_flag=True, help="Go on from the newest state in RUN_DIR, bit for bit.")
@click.option("--dry-run", is_flag=True, help="Print settings, steps and an estimate of the memory; train nothing.")
@options.result
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
    **given: Any,
) -> None:
    """Train all resolutions of CHECKPOINT together on labelled images, or on images with masks.

    An option overrides --set, which overrides --config, which overrides --recipe. Under torchrun, -m rsconvert finetune
    trains in all processes together.
    """
    from rsconvert.evaluation import launched_rank

    if not output:
        raise ConfigError("output is empty; a folder for the run is needed. Give one by --output.")
    resolved = _config(config, settings, given, recipe)
    if recipe is not None and not as_json:
        values = "  ".join(f"{key}={plain(value)}" for key, value in RECIPES[recipe].items())
        options.log(f"recipe {recipe}: {values or 'the defaults'}")
    net = load_network(checkpoint, model)
    leads = launched_rank() == 0
    if leads:
        log_loading(net)
    if dry_run:
        _preview(net, data, resolved, as_json, leads)
    else:
        _finetune(net, data, output, resolved, as_json, leads, resume=resume, force=force)


def _config(
    file: str | None, settings: tuple[str, ...], given: Mapping[str, Any], recipe: str | None
) -> FinetuneConfig:
    own = {key: value for key, value in given.items() if value is not None}
    return build_config(file, {**options.strings(settings), **own}, recipe)


def _preview(net: "SwitchableModel", data: str, config: FinetuneConfig, as_json: bool, leads: bool) -> None:
    from rsconvert.training import preview

    facts = preview(net, data, config)
    if leads:
        memory = ", ".join(f"{part} {size / 2**20:.1f}" for part, size in facts["memory"].items())
        lines = [f"{key}: {plain(value)}" for key, value in facts.items() if key != "memory"]
        options.print_result(facts, as_json, "\n".join([*lines, f"memory (MiB): {memory}"]))


def _finetune(
    net: "SwitchableModel",
    data: str,
    output: str,
    config: FinetuneConfig,
    as_json: bool,
    leads: bool,
    *,
    resume: bool,
    force: bool,
) -> None:
    from rsconvert.training import explain_defaults, keep_freed_memory
    from rsconvert.training import finetune as train

    if not config.low_memory:  # what is kept is memory too
        keep_freed_memory()
    if config.compile != "off" and leads:
        options.log("each path is compiled when it first runs, which takes a minute or more")
    if leads and (line := explain_defaults(net, config)) is not None:
        options.log(line)
    log = partial(_log_epoch, config=config)
    result = train(net, data, output, config, resume=resume, force=force, progress=not as_json, on_epoch=log)
    if leads:
        files = f"{output}: best.safetensors, last.safetensors, summary.csv, config.json"
        facts = {"output": output, "epochs": list(result), "best": result.best, "stopped": result.stopped}
        text = f"{files}\n{result}"
        text += "" if result.stopped is None else f"\nstopped {result.stopped}"
        options.print_result(facts, as_json, text)


@click.command(short_help="Train in several ways with one budget, and compare.")
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT")
@options.data
@click.option("--output", required=True, type=click.Path(), metavar="DIR", help="Folder for the runs and the report.")
@options.defaulted(
    "study.plan_comparison",
    "--methods",
    metavar="LIST",
    help="Of inets, parallel, rsnet, shared-bn, vanilla, top-down, largest, per-view, one-size, source, calibrated, "
    "heads, fixres.",
)
@click.option("--subsets", metavar="LIST", help="Parallel training of some resolutions, such as 224+96,224+128.")
@options.defaulted("study.plan_comparison", "--seeds", metavar="LIST", help="Each method with each of them.")
@options.resolutions("Where to test, trained or not; the trained ones.")
@click.option("--crop-area", metavar="LOW,HIGH", help="All once more with such a range of crop areas: 0.08,1.")
@click.option(
    "--against",
    metavar="LIST",
    help="Other networks, models as for wrap or checkpoints of it, each trained as an I-Net of the largest size.",
)
@options.settings("epochs", "batch_size")
@click.option(
    "--lr",
    type=float,
    help="Peak rate of an I-Net, divided by S for S views; by default 0.005 · batch size / 32.",
)
@click.option("--same-lr", is_flag=True, help="The same rate for all, as in the paper, in place of the division.")
@options.settings("amp", "workers", "device", "split")
@options.class_map
@options.masks
@options.config
@click.option("--dry-run", is_flag=True, help="Print which runs there are and which are done; train nothing.")
@options.model
@options.as_json
def compare(
    checkpoint: str,
    data: str,
    output: str,
    methods: str,
    subsets: str | None,
    seeds: str,
    resolutions: tuple[int, ...] | None,
    crop_area: str | None,
    against: str | None,
    same_lr: bool,
    recipe: str | None,
    config: str | None,
    settings: tuple[str, ...],
    dry_run: bool,
    model: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Train CHECKPOINT, as wrap leaves it, in several ways with one budget, and tabulate what each reaches.

    inets are networks for one resolution each, parallel trains all resolutions without distillation, rsnet with it. The
    same command goes on where an earlier one was interrupted, and reads what is done. DIR gets report.md.
    """
    from rsconvert.study import load_others, plan_comparison

    resolved = _config(config, settings, given, recipe)
    net = load_network(checkpoint, model)
    plan = plan_comparison(
        net,
        data,
        output,
        resolved,
        methods=options.words(methods),
        subsets=[options.numbers(text.replace("+", ",")) for text in subsets.split(",")] if subsets else [],
        crop_area=crop_area,
        seeds=options.numbers(seeds),
        resolutions=resolutions,
        same_lr=same_lr,
        against=load_others(options.words(against), net) if against else None,
    )
    if dry_run:
        options.print_result(plan.to_dict(), as_json, plan)
    else:
        _compare(plan, resolved, as_json)


def _compare(plan: "Plan", config: FinetuneConfig, as_json: bool) -> None:
    from rsconvert.study import compare as run
    from rsconvert.training import keep_freed_memory

    options.log(str(plan))
    if not config.low_memory:  # what is kept is memory too
        keep_freed_memory()
    found = run(
        plan,
        command=shlex.join(["rsconvert", *sys.argv[1:]]),
        progress=not as_json,
        log=options.log,
        on_epoch=partial(_log_epoch, config=config),
    )
    options.print_result(found.to_dict(), as_json, f"{found}\n\n{plan.folder}: report.md, its figures and numbers")


def _log_epoch(row: "Row", config: FinetuneConfig) -> None:
    from rsconvert.training import epoch_line

    trained = sum(key.startswith("score_") for key in row)  # of an I-Net in a comparison it is one
    options.log(epoch_line(row, config.epochs, config.drawn_views(trained) if trained > 2 else trained))


@click.command(short_help="Run the whole way on drawn images, in a few minutes.")
@options.output("Folder for what is made.", default="rsconvert-demo", show_default=True)
@options.defaulted("demo.run_demo", "--seed", type=int, help="Of the drawings and the training.")
@options.force
@options.as_json
def demo(output: str, seed: int, force: bool, as_json: bool) -> None:
    """Run the whole story on drawn images, offline, in a few minutes.

    Draws a small image set, trains an ordinary CNN at one resolution, converts and finetunes it, and compares both at
    nine resolutions. Leaves a table, a figure, the checkpoint and a plain export in a folder.
    """
    from rsconvert.demo import run_demo

    result = run_demo(output, seed=seed, force=force, log=None if as_json else options.log)
    options.print_result(result.to_dict(), as_json, result)
