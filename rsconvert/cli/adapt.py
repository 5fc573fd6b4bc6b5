"""Commands that adapt a checkpoint to images and write another one: calibrate, quantize, cascade."""

from typing import TYPE_CHECKING, Any, Unpack

import click

from rsconvert.cli import options
from rsconvert.cli.loading import load_network, network_name

if TYPE_CHECKING:
    from rsconvert.surgery import SwitchableModel

__all__ = ["calibrate", "cascade", "quantize"]


@click.command(short_help="Set the statistics of BatchNorm from images, no labels.")
@options.checkpoint
@options.unlabelled(required=True)
@options.defaulted("calibration.calibrate", "--images", type=int, help="How many to draw.")
@options.resolutions("Trained sides in pixels; the default is all but the native one.")
@options.defaulted(
    "calibration.calibrate",
    "--form",
    type=click.Choice(["population", "momentum"]),
    help="Statistics over all values, or each BatchNorm's running average.",
)
@options.defaulted("calibration.calibrate", "--seed", type=int, help="Of the drawing.")
@options.reading
@options.output("The file to write; NAME.calibrated.safetensors.")
@options.result
def calibrate(
    checkpoint: str,
    data: str,
    images: int,
    resolutions: tuple[int, ...] | None,
    form: str,
    seed: int,
    output: str | None,
    model: str | None,
    force: bool,
    as_json: bool,
    **reading: Unpack[options.Reading],
) -> None:
    """Give the BN sets of CHECKPOINT the statistics of images, without labels.

    Only running means and variances change, by default not the native ones. Measure the result: it may be worse.
    """
    from rsconvert import calibrate as estimate
    from rsconvert import save
    from rsconvert.checkpoint import file_of

    source = file_of(checkpoint)
    target = f"{network_name(source)}.calibrated.safetensors" if output is None else output
    options.refuse_existing(target, force)
    net = load_network(source, model)
    rest: dict[str, Any] = {"images": images, "form": form, "seed": seed, "progress": not as_json, **reading}
    report = estimate(net, data, resolutions, **rest)
    save(net, target)
    options.print_result({"checkpoint": target, **report.to_dict()}, as_json, f"{report}\nwrote {target}")


def _defaults(argument: str) -> str:
    int8, bits = (options.default_of(f, argument) for f in ("export.quantize", "calibration.quantize_calibrated"))
    return f"the default is {int8}, with --bits {bits}"


@click.command(short_help="Measure ranges for int8 files, or give weights few bits.")
@options.checkpoint
@options.unlabelled(required=True)
@click.option(
    "--bits",
    metavar="W/32",
    help="Put weights on the levels of 1 to 8 bits instead, and give all BN sets the statistics that come of it.",
)
@click.option("--images", type=int, help=f"How many to draw; {_defaults('images')}.")
@options.seed("export.quantize", "Of the drawing.")
@click.option("--batch-size", type=int, help=f"Images per forward; {_defaults('batch_size')}.")
@options.workers
@options.data_root
@options.skip_broken
@options.output("The file to write; NAME.int8.safetensors, with --bits 4/32 NAME.w4.safetensors.")
@options.result
def quantize(
    checkpoint: str,
    data: str,
    bits: str | None,
    images: int | None,
    seed: int,
    batch_size: int | None,
    workers: int,
    data_root: str | None,
    skip_broken: int,
    output: str | None,
    model: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure the ranges of CHECKPOINT's activations at each resolution, for export --format onnx --int8.

    Writes a checkpoint that holds them, and the bias correction for rounded weights; no value of the network changes.
    Images are cropped as in evaluation, without labels. Compare an int8 file with the network by verify --data.
    With --bits 4/32 it writes a network whose convolutions have weights of 4 bits, without training.
    """
    from rsconvert import save
    from rsconvert.checkpoint import file_of

    source = file_of(checkpoint)
    kind = "int8" if bits is None else f"w{bits.partition('/')[0]}"
    target = f"{network_name(source)}.{kind}.safetensors" if output is None else output
    options.refuse_existing(target, force)
    net = load_network(source, model)
    reading = {"workers": workers, "data_root": data_root, "skip_broken": skip_broken}
    rest = {"seed": seed, "progress": not as_json, **reading}
    report = _quantized(net, data, bits, {**rest, **_given(images=images, batch_size=batch_size)})
    save(net, target)
    options.print_result({"checkpoint": target, **report.to_dict()}, as_json, f"{report}\nwrote {target}")


def _given(**values: int | None) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _quantized(net: "SwitchableModel", data: str, bits: str | None, rest: dict[str, Any]) -> Any:
    from rsconvert.calibration import quantize_calibrated
    from rsconvert.export import quantize as measure

    if bits is None:
        return measure(net, data, **rest)
    quantized, report = quantize_calibrated(net, data, bits, **rest)
    options.log(str(quantized))
    return report


@click.command(short_help="Fit a cascade: a larger image only where in doubt.")
@options.checkpoint
@options.data
@click.option(
    "--accuracy", "top1", type=float, metavar="X", help="Top-1 to reach, in percent; that of the best single path."
)
@click.option("--multiply-adds", type=float, metavar="M", help="Mean per image not to exceed, such as 30e6, instead.")
@options.resolutions("Paths to try: 224,160, ranges 96:224:16; the trained ones and every 16 pixels between.")
@options.seed("runtime.fit_cascade", "Of the two halves.")
@options.labelled
@options.output("The file to write; NAME.cascade.safetensors.")
@options.result
def cascade(
    checkpoint: str,
    data: str,
    top1: float | None,
    multiply_adds: float | None,
    resolutions: tuple[int, ...] | None,
    seed: int,
    output: str | None,
    model: str | None,
    force: bool,
    as_json: bool,
    **reading: Unpack[options.Labelled],
) -> None:
    """Fit a cascade for CHECKPOINT on one half of the val/ images of DIR, and measure it on the other half.

    Each image runs at a small resolution first, and at a larger one if the prediction is not confident enough. Writes a
    checkpoint that holds the cascade, for rsconvert.cascade(net, images); no file if a path that costs no more is as
    good, or worse by no more than chance (McNemar's test at 5 %).
    """
    from rsconvert import save
    from rsconvert.checkpoint import file_of
    from rsconvert.runtime import fit_cascade

    source = file_of(checkpoint)
    target = f"{network_name(source)}.cascade.safetensors" if output is None else output
    options.refuse_existing(target, force)
    net = load_network(source, model)
    report = fit_cascade(
        net,
        data,
        top1=top1,
        multiply_adds=multiply_adds,
        resolutions=resolutions,
        seed=seed,
        progress=not as_json,
        **reading,
    )
    if report.gains:
        save(net, target)
    written, said = (target, f"wrote {target}") if report.gains else (None, "wrote no file")
    options.print_result({"checkpoint": written, **report.to_dict()}, as_json, f"{report}\n{said}")
