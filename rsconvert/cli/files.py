"""Commands about files: wrap, inspect."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsconvert.cli.options import (
    best_of,
    file_name,
    floats,
    force_option,
    json_option,
    literals,
    numbers,
    refuse_existing,
)
from rsconvert.cli.printing import log_loading, plain, print_conversion, print_refusal, print_result
from rsconvert.errors import ConfigError, ResolutionError

if TYPE_CHECKING:
    from rsconvert.surgery import ConversionReport, SwitchableModel

__all__ = ["inspect", "wrap"]

_FIVE = "224,192,160,128,96"


@click.command()
@click.argument("model")
@click.option("--resolutions", default=_FIVE, show_default=True, help="Sides in pixels; the largest is native.")
@click.option(
    "--pretrained/--no-pretrained", default=None, help="Download weights; the default unless --weights is given."
)
@click.option(
    "--weights",
    type=click.Path(),
    help="A safetensors or torch file to load strictly, without prefixes such as module.; a classifier of another size "
    "starts at zero.",
)
@click.option("--rsnets", type=click.Path(), help="A checkpoint of the paper's public release, with all its BN sets.")
@click.option("--num-classes", type=int, help="Outputs of the classifier.")
@click.option(
    "--model-kwargs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Further argument of the model's builder; may be repeated.",
)
@click.option("--mean", metavar="R,G,B", help="Mean of the input, of pixels in [0, 1].")
@click.option("--std", metavar="R,G,B", help="Standard deviation of the input.")
@click.option("--interpolation", help="How images are resized: bilinear or bicubic.")
@click.option("--crop-pct", type=float, help="Side of the evaluation crop divided by the resized image's short side.")
@click.option("-o", "--output", type=click.Path(), help="The file to write; the default is NAME.rs.safetensors.")
@click.option("--dry-run", is_flag=True, help="Convert and prove, print the whole report, write nothing.")
@force_option
@json_option
def wrap(
    model: str,
    resolutions: str,
    pretrained: bool | None,
    weights: str | None,
    rsnets: str | None,
    num_classes: int | None,
    model_kwargs: tuple[str, ...],
    mean: str | None,
    std: str | None,
    interpolation: str | None,
    crop_pct: float | None,
    output: str | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Convert MODEL and write one switchable checkpoint.

    MODEL is a timm name (resnet50, resnet50.a1_in1k, hf-hub:..., local-dir:...), torchvision/NAME, or FILE.py:FUNCTION.
    """
    target = Path(f"{file_name(model)}.rs.safetensors" if output is None else output)
    if dry_run and (force or output is not None):
        raise ConfigError("dry-run writes nothing, so --output and --force have no effect. Drop one of them.")
    download = _downloads(model, pretrained, weights, rsnets)
    from rsconvert import save
    from rsconvert.checkpoint import fill_from_rsnets
    from rsconvert.surgery import check_resolutions

    sides = check_resolutions(numbers(resolutions))
    if not dry_run:
        refuse_existing(target, force)
    arguments = {"num_classes": num_classes, "model_kwargs": literals(model_kwargs)}
    refusal = partial(print_refusal, as_json=as_json) if dry_run else None
    net = _converted(model, sides, {"pretrained": download, "weights": weights}, arguments, refusal)
    if not dry_run:
        log_loading(net)
    if rsnets is not None:
        fill_from_rsnets(net, rsnets)
    given: dict[str, Any] = {
        "mean": floats("mean", mean),
        "std": floats("std", std),
        "interpolation": interpolation,
        "crop_pct": crop_pct,
    }
    known = {key: value for key, value in given.items() if value is not None}
    net.source = replace(net.source, preprocessing=replace(net.source.preprocessing, **known))
    if not dry_run:
        save(net, target)
    print_conversion(net, None if dry_run else target, as_json)


def _downloads(model: str, pretrained: bool | None, weights: str | None, rsnets: str | None) -> bool:
    """Tell whether the library's own weights are fetched: by default where nothing else gives the values."""
    from rsconvert.models import is_file_name

    if rsnets is not None and (pretrained or weights is not None):
        raise ConfigError(f"rsnets is {rsnets}, beside pretrained or weights; one of them is accepted. Drop one.")
    given = weights is not None or rsnets is not None or is_file_name(model)
    return not given if pretrained is None else pretrained


def _converted(
    model: str,
    resolutions: tuple[int, ...],
    values: dict[str, Any],
    arguments: dict[str, Any],
    refusal: Callable[["ConversionReport"], None] | None,
) -> "SwitchableModel":
    """Return the network; hand the report on a refused model to ``refusal``. Weights are fetched for no such model."""
    from rsconvert import create_model, make_switchable
    from rsconvert.models import unfilled
    from rsconvert.surgery import check_switchable, examine

    with unfilled() if values["pretrained"] else nullcontext():
        plain = create_model(model, **arguments, weights=values["weights"])
    try:
        if values["pretrained"]:
            check_switchable(plain, resolutions)
            plain = create_model(model, **arguments, **values)
        return make_switchable(plain, resolutions)
    except ResolutionError:
        if refusal is not None:
            refusal(examine(plain, resolutions))
        raise


@click.command()
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
@json_option
def inspect(checkpoint: str, as_json: bool) -> None:
    """Tell what a switchable CHECKPOINT holds, without building its network."""
    from rsconvert.checkpoint import describe

    facts = describe(best_of(checkpoint))
    print_result(facts, as_json, "\n".join(f"{key}: {plain(value)}" for key, value in facts.items()))
