"""The command calibrate: BN statistics out of images without labels."""

from pathlib import Path

import click

from rsconvert.cli.loading import load_network
from rsconvert.cli.options import (
    best_of,
    device_option,
    force_option,
    json_option,
    model_option,
    numbers,
    refuse_existing,
    workers_option,
)
from rsconvert.cli.printing import print_result

__all__ = ["calibrate"]


@click.command()
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
@click.option(
    "--data",
    required=True,
    metavar="DIR",
    help="Folder of images, of whose train/ if it has one, or a timm data-set string; labels are not needed.",
)
@click.option("--images", type=int, default=1000, show_default=True, help="How many to draw.")
@click.option("--resolutions", help="Trained sides in pixels; the default is all but the native one.")
@click.option(
    "--form",
    type=click.Choice(["population", "momentum"]),
    default="population",
    show_default=True,
    help="Statistics over all values, or each BatchNorm's running average.",
)
@click.option("--batch-size", type=int, default=64, show_default=True, help="Images per forward.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawing.")
@workers_option
@device_option
@click.option("--data-root", help="Where a timm data-set string finds its files.")
@click.option("-o", "--output", type=click.Path(), help="The file to write; NAME.calibrated.safetensors.")
@model_option
@force_option
@json_option
def calibrate(
    checkpoint: str,
    data: str,
    images: int,
    resolutions: str | None,
    form: str,
    batch_size: int,
    seed: int,
    workers: int | None,
    device: str | None,
    data_root: str | None,
    output: str | None,
    model: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Give the BN sets of CHECKPOINT the statistics of images, without labels.

    Only running means and variances change, by default not the native ones. Measure the result: it may be worse.
    """
    source = best_of(checkpoint)
    name = Path(source).name.removesuffix(".safetensors").removesuffix(".rs")
    target = Path(f"{name}.calibrated.safetensors" if output is None else output)
    refuse_existing(target, force)
    from rsconvert import calibrate as estimate
    from rsconvert import save
    from rsconvert.surgery import check_resolutions

    net = load_network(source, model)
    report = estimate(
        net,
        data,
        None if resolutions is None else check_resolutions(numbers(resolutions)),
        images=images,
        form=form,  # type: ignore[arg-type]  # one of click's choices
        batch_size=batch_size,
        workers=2 if workers is None else workers,
        device=device,
        seed=seed,
        data_root=data_root,
        progress=not as_json,
    )
    save(net, target)
    print_result({"checkpoint": str(target), **report.to_dict()}, as_json, f"{report}\nwrote {target}")
