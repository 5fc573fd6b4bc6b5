"""Commands about images: finetune, evaluate, demo."""

from typing import Any

import click

from rsconvert.cli.loading import load_network
from rsconvert.cli.options import (
    best_of,
    class_map_option,
    compute_options,
    data_option,
    force_option,
    json_option,
    model_option,
    numbers,
    strings,
)
from rsconvert.cli.printing import best_row, log_epoch, print_result, row_line
from rsconvert.errors import ConfigError

__all__ = ["demo", "evaluate", "finetune"]


@click.command()
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
@data_option
@click.option(
    "--output", required=True, type=click.Path(), metavar="RUN_DIR", help="Folder for checkpoints and summary.csv."
)
@click.option("--epochs", type=int, help="Passes over the training images; 10.")
@click.option("--batch-size", type=int, help="Images per step; 32.")
@click.option(
    "--lr", type=float, help="Peak rate for the summed loss of S views: an ordinary rate / S; 0.005 * batch / 32 / S."
)
@click.option(
    "--distill", type=click.Choice(["full", "vanilla", "top-down", "largest", "none"]), help="Distillation; full."
)
@click.option(
    "--train",
    type=click.Choice(["all", "bn", "head"]),
    help="What learns: all, the smaller BN sets, the classifier; all.",
)
@click.option(
    "--crop", type=click.Choice(["shared", "per-view"]), help="One crop for all views of an image, or one each; shared."
)
@click.option("--flip", type=click.Choice(["shared", "per-view", "off"]), help="Likewise for the flip; shared.")
@click.option("--seed", type=int, help="Of the order, the crops, dropout; 0.")
@compute_options
@click.option("--config", type=click.Path(), metavar="FILE.toml", help="Settings from a file.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any other setting; may be repeated.")
@model_option
@force_option
@json_option
def finetune(
    checkpoint: str,
    data: str,
    output: str,
    config: str | None,
    settings: tuple[str, ...],
    model: str | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train all resolutions of CHECKPOINT together on labelled images.

    An option overrides --set, which overrides --config.
    """
    from rsconvert.training import build_config
    from rsconvert.training import finetune as train

    given = {key: value for key, value in options.items() if value is not None}
    if not output:
        raise ConfigError("output is empty; a folder for the run is needed. Give one by --output.")
    resolved = build_config(config, {**strings(settings), **given})
    net = load_network(best_of(checkpoint), model)
    rows = train(
        net,
        data,
        output,
        resolved,
        force=force,
        progress=not as_json,
        on_epoch=lambda row: log_epoch(row, resolved.epochs),
    )
    print_result(
        {"output": output, "epochs": rows},
        as_json,
        f"{output}: best.safetensors, last.safetensors, summary.csv, config.json\n"
        f"best: epoch {best_row(rows)['epoch']}, {row_line(best_row(rows))}",
    )


@click.command()
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
@data_option
@click.option("--resolutions", help="Sides in pixels, trained or not; the default is the trained ones.")
@click.option("--batch-size", type=int, default=64, show_default=True, help="Images per forward.")
@compute_options
@click.option("--data-root", help="Where a timm data-set string finds its files.")
@class_map_option
@model_option
@json_option
def evaluate(
    checkpoint: str,
    data: str,
    resolutions: str | None,
    batch_size: int,
    amp: str | None,
    workers: int | None,
    device: str | None,
    data_root: str | None,
    class_map: str | None,
    model: str | None,
    as_json: bool,
) -> None:
    """Measure CHECKPOINT at each resolution on the val/ images of DIR, and the ensemble of the trained ones.

    A resolution between trained ones runs on interpolated BatchNorm.
    """
    from rsconvert import evaluate as measure
    from rsconvert.surgery import check_resolutions
    from rsconvert.training import choose_device, choose_precision

    net = load_network(best_of(checkpoint), model)
    where = choose_device(device)
    result = measure(
        net,
        data,
        None if resolutions is None else check_resolutions(numbers(resolutions)),
        batch_size=batch_size,
        workers=2 if workers is None else workers,
        device=where,
        amp=choose_precision(amp, where),
        data_root=data_root,
        class_map=class_map,
        progress=not as_json,
    )
    print_result(result.to_dict(), as_json, str(result))


@click.command()
@click.option(
    "-o", "--output", type=click.Path(), default="rsconvert-demo", show_default=True, help="Folder for what is made."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawings and the training.")
@force_option
@json_option
def demo(output: str, seed: int, force: bool, as_json: bool) -> None:
    """Run the whole story on drawn images, offline, in a few minutes.

    Draws a small image set, trains an ordinary CNN at one resolution, converts and finetunes it, and compares both at
    nine resolutions. Leaves a table, a figure, the checkpoint and a plain export in a folder.
    """
    from rsconvert.demo import run_demo

    result = run_demo(output, seed=seed, force=force, log=None if as_json else lambda line: click.echo(line, err=True))
    print_result(result.to_dict(), as_json, str(result))
