"""Commands that convert a model, and list what can be converted: wrap, models."""

from functools import partial
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from rsconvert.cli import options
from rsconvert.cli.loading import log_loading
from rsconvert.compatibility import FIVE, details, list_models, read_table
from rsconvert.errors import ConfigError

if TYPE_CHECKING:
    from rsconvert.surgery import ConversionReport, SwitchableModel

__all__ = ["models", "wrap"]


class _Told(TypedDict):
    """The options of `wrap` that say what a network is for."""

    task: str | None
    ignore_index: int | None
    output_key: str | None


def _model_names(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Return what the shell may complete a model's name to: those that can be converted."""
    rows = read_table().rows
    return [row.name for row in rows if row.name.startswith(typed) and row.size_class in ("A", "B", "C")]


@click.command(short_help="Convert a model and write one switchable file.")
@click.argument("model", shell_complete=_model_names)
@options.resolutions("Sides in pixels; the largest is native.", default=",".join(map(str, FIVE)), show_default=True)
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
@click.option("--mean", metavar="R,G,B", help="Mean of the input, of pixels in [0, 1]; one number of a grey network.")
@click.option("--std", metavar="R,G,B", help="Standard deviation of the input.")
@click.option("--interpolation", help="How images are resized: bilinear or bicubic.")
@click.option(
    "--crop-pct",
    metavar="X|R=X,...",
    help="Side of the evaluation crop divided by the resized image's short side: one number, or a table such as "
    "224=0.95,96=0.875, linear in between.",
)
@click.option(
    "--task",
    type=click.Choice(["classification", "segmentation"]),
    help="What the logits stand for; recognised for torchvision and segmentation_models_pytorch, else classification.",
)
@click.option("--ignore-index", type=int, help="Of segmentation: the value of a mask where nothing is known; 255.")
@click.option("--output-key", metavar="KEY", help="The logits in an output that is a dict or a tuple.")
@click.option(
    "--private",
    default="bn",
    show_default=True,
    metavar="LIST",
    help="What each resolution has of its own: bn, or bn,head with a classifier each, whose parameters are printed.",
)
@click.option(
    "--large-head", is_flag=True, help="Accept private classifiers that add more than a tenth to the parameters."
)
@options.output("The file to write; the default is NAME.rs.safetensors.")
@click.option("--dry-run", is_flag=True, help="Convert and prove, print the whole report, write nothing.")
@options.force
@options.as_json
def wrap(
    model: str,
    resolutions: tuple[int, ...],
    pretrained: bool | None,
    weights: str | None,
    rsnets: str | None,
    num_classes: int | None,
    model_kwargs: tuple[str, ...],
    mean: str | None,
    std: str | None,
    interpolation: str | None,
    crop_pct: str | None,
    private: str,
    large_head: bool,
    output: str | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
    **told: Unpack[_Told],
) -> None:
    """Convert MODEL and write one switchable checkpoint.

    MODEL: a timm name (resnet50, hf-hub:..., local-dir:...), torchvision/NAME, smp/DECODER:ENCODER or FILE.py:FUNCTION.
    """
    target = _target(model, output, dry_run, force)
    from rsconvert.wrapping import wrap as converted

    net = converted(
        model,
        resolutions,
        pretrained=pretrained,
        weights=weights,
        rsnets=rsnets,
        num_classes=num_classes,
        model_kwargs=options.literals(model_kwargs),
        preprocessing={
            "mean": None if mean is None else options.floats("mean", mean),
            "std": None if std is None else options.floats("std", std),
            "interpolation": interpolation,
            "crop_pct": None if crop_pct is None else options.share_table("crop_pct", crop_pct),
        },
        task={"name": told["task"], "ignore_index": told["ignore_index"], "output": told["output_key"]},
        private=options.words(private),
        large_head=large_head,
        on_refusal=partial(_print_refusal, as_json=as_json) if dry_run else None,
    )
    _finish(net, target, as_json)


def _target(model: str, output: str | None, dry_run: bool, force: bool) -> str | None:
    """Return the file to write; None if there is none."""
    if dry_run and (force or output is not None):
        raise ConfigError("dry-run writes nothing, so --output and --force have no effect. Leave them out.")
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in model.rpartition("/")[2])
    target = None if dry_run else f"{name}.rs.safetensors" if output is None else output
    if target is not None:
        options.refuse_existing(target, force)
    return target


def _print_refusal(report: "ConversionReport", as_json: bool) -> None:
    from rsconvert.wrapping import refusal

    options.print_result({"checkpoint": None, **refusal(report)}, as_json, f"{report.details()}\n\n{report}")


def _finish(net: "SwitchableModel", target: str | None, as_json: bool) -> None:
    """Write the network, if there is a file to write, and print what was done."""
    from rsconvert import save
    from rsconvert.wrapping import conversion_of

    found = conversion_of(net)
    if target is None:
        facts = {"checkpoint": None, **found.to_dict(), "report": found.report.to_dict()}
        options.print_result(facts, as_json, f"{found.report.details()}\n\n{found}\nnothing written (dry run)")
        return
    log_loading(net)
    save(net, target)
    options.print_result({"checkpoint": target, **found.to_dict()}, as_json, f"{found}\nwrote {target}")


@click.command(short_help="List the models that can be converted.")
@click.argument("pattern", default="*")
@click.option("--check", metavar="MODEL", help="Measure this model here and now instead of reading the table.")
@click.option(
    "--class", "size_class", type=click.Choice(["A", "B", "C", "D", "none"]), help="Only the models of this class."
)
@options.as_json
def models(pattern: str, check: str | None, size_class: str | None, as_json: bool) -> None:
    """List the models of timm and torchvision with what a conversion does to them; PATTERN is a glob such as 'resnet*'.

    Class A takes the resolutions 224, 192, 160, 128, 96 as it is; B is built again for each of them; C too, with
    position tables of its own for each; D works at some of them or at others alone; none has no BatchNorm.
    """
    if check is None:
        listing = list_models(pattern, size_class)
        options.print_result(listing.to_dict(), as_json, listing)
        return
    if pattern != "*" or size_class is not None:
        raise ConfigError(f"check measures {check} alone, so a pattern and --class have no effect. Leave them out.")
    from rsconvert.compatibility.check import measure

    facts, text = details(measure(check, in_batches=True))
    options.print_result(facts, as_json, text)
