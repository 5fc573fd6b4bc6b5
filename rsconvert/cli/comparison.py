"""The command compare."""

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from rsconvert.cli.loading import load_network
from rsconvert.cli.options import (
    class_map_option,
    compute_options,
    data_option,
    json_option,
    model_option,
    numbers,
    options,
    resolution_list,
    settings_options,
    strings,
)
from rsconvert.cli.printing import log_epoch, print_result

if TYPE_CHECKING:
    from rsconvert.settings import FinetuneConfig
    from rsconvert.study import Plan

__all__ = ["compare"]

_choice_options = options(
    click.option(
        "--methods",
        default="inets,parallel,rsnet",
        show_default=True,
        metavar="LIST",
        help="Of inets, parallel, rsnet, shared-bn, vanilla, top-down, largest, per-view, one-size.",
    ),
    click.option("--subsets", metavar="LIST", help="Parallel training of some resolutions, such as 224+96,224+128."),
    click.option("--seeds", default="0,1,2", show_default=True, metavar="LIST", help="Each method with each of them."),
    click.option("--resolutions", metavar="LIST", help="Where to test, trained or not; the trained ones."),
    click.option("--crop-area", metavar="LOW,HIGH", help="All once more with such a range of crop areas: 0.08,1."),
)
_budget_options = options(
    click.option("--epochs", type=int, help="Passes over the training images, for each run; 10."),
    click.option("--batch-size", type=int, help="Images of a step, for each run; 32."),
    click.option("--lr", type=float, help="Peak rate of an I-Net, divided by S for S views; 0.005 * batch size / 32."),
    click.option("--same-lr", is_flag=True, help="The same rate for all, as in the paper, in place of the division."),
)


@click.command()
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT")
@data_option
@click.option("--output", required=True, type=click.Path(), metavar="DIR", help="Folder for the runs and the report.")
@_choice_options
@_budget_options
@compute_options
@class_map_option
@settings_options
@click.option("--dry-run", is_flag=True, help="Print which runs there are and which are done; train nothing.")
@model_option
@json_option
def compare(
    checkpoint: str,
    data: str,
    output: str,
    methods: str,
    subsets: str | None,
    seeds: str,
    resolutions: str | None,
    crop_area: str | None,
    same_lr: bool,
    recipe: str | None,
    config: str | None,
    settings: tuple[str, ...],
    dry_run: bool,
    model: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train CHECKPOINT, as wrap leaves it, in several ways with one budget, and tabulate what each reaches.

    inets are networks for one resolution each, parallel trains all resolutions without distillation, rsnet with it. The
    same command goes on where an earlier one was interrupted, and reads what is done. DIR gets report.md.
    """
    from rsconvert.settings import build_config
    from rsconvert.study import plan_comparison

    given = {key: value for key, value in options.items() if value is not None}
    resolved = build_config(config, {**strings(settings), **given}, recipe)
    plan = plan_comparison(
        load_network(checkpoint, model),
        data,
        output,
        resolved,
        methods=[name.strip() for name in methods.split(",")] if methods else [],
        subsets=[numbers(text.replace("+", ",")) for text in subsets.split(",")] if subsets else [],
        crop_area=crop_area,
        seeds=numbers(seeds),
        resolutions=None if resolutions is None else resolution_list(resolutions),
        same_lr=same_lr,
    )
    if dry_run:
        print_result(plan.to_dict(), as_json, str(plan))
    else:
        _run(plan, resolved, as_json)


def _run(plan: "Plan", config: "FinetuneConfig", as_json: bool) -> None:
    from rsconvert.study import compare as run
    from rsconvert.training import keep_freed_memory

    click.echo(str(plan), err=True)
    if not config.low_memory:  # what is kept is memory too
        keep_freed_memory()
    found = run(
        plan,
        command=shlex.join(["rsconvert", *sys.argv[1:]]),
        progress=not as_json,
        log=lambda line: click.echo(line, err=True),
        on_epoch=lambda row: log_epoch(row, config.epochs),
    )
    print_result(found.to_dict(), as_json, f"{found}\n\n{plan.folder}: report.md, its figures and numbers")
