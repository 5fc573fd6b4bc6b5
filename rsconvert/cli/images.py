"""Commands about images: evaluate, demo."""

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
)
from rsconvert.cli.printing import print_result

__all__ = ["demo", "evaluate"]


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
