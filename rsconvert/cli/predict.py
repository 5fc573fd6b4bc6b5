"""The command predict: photos in, names of classes out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from rsconvert.cli import options
from rsconvert.cli.loading import load_network
from rsconvert.errors import ConfigError

if TYPE_CHECKING:
    from rsconvert.runtime import PredictionList
    from rsconvert.surgery import SwitchableModel

__all__ = ["predict"]

_TEXTS = (".csv", ".json")


class _How(TypedDict):
    """The options that the library takes as they are."""

    resolution: int | None
    latency_ms: float | None
    cascade: bool
    top_k: int
    class_map: str | None
    batch_size: int
    workers: int
    device: str | None
    amp: str | None
    skip_broken: int


@click.command(short_help="Name what is on photos.")
@click.argument("network", type=click.Path(), metavar="CHECKPOINT|RUN_DIR|FILE.onnx")
@click.argument("photos", nargs=-1, required=True, type=click.Path(), metavar="PHOTO|FOLDER...")
@click.option("--resolution", type=int, metavar="R", help="Of the path, in pixels, trained or not; the native one.")
@click.option(
    "--latency-ms",
    type=float,
    metavar="X",
    help="The best path within this time for an image, by the table that benchmark --store keeps.",
)
@click.option("--cascade", is_flag=True, help="The stored cascade: it chooses the path of each image.")
@options.defaulted("runtime.predict", "--top-k", type=int, help="Classes for each image.")
@options.class_map_of_outputs
@options.output("Write the predictions instead of printing them: .csv or .json; of masks a folder.")
@options.defaulted("runtime.predict", "--batch-size", type=int, help="Images per forward.")
@options.workers
@options.device
@options.amp
@options.skip_broken
@options.result
def predict(
    network: str,
    photos: tuple[str, ...],
    output: str | None,
    model: str | None,
    force: bool,
    as_json: bool,
    **how: Unpack[_How],
) -> None:
    """Print the most probable classes of each PHOTO, and of all photos below each FOLDER.

    FILE.onnx is a file that export wrote; it runs in ONNX Runtime on the CPU. A network of segmentation writes the mask
    of each photo, and an overlay, into the folder of --output.
    """
    if output is not None:
        options.refuse_existing(output, force, may_be_folder=Path(output).suffix not in _TEXTS)
    from rsconvert import predict as run

    is_onnx = Path(network).suffix == ".onnx"
    if is_onnx and model is not None:
        raise ConfigError(f"model is {model} for an ONNX file, which needs none. Leave it out.")
    net = network if is_onnx else load_network(network, model)
    if not isinstance(net, str) and net.source.task.dense:
        _masks(net, photos, output, force, as_json, how)
        return
    if output is not None and Path(output).suffix not in _TEXTS:
        masks = " Masks are written by the network's own file alone." if is_onnx else ""
        raise ConfigError(f"output is {output}; a name in .csv or .json is accepted. Rename it, or use --json.{masks}")
    found = run(net, photos, **how, progress=not as_json)
    if how["latency_ms"] is not None:
        options.log(f"resolution {found[0].resolution}: the best within {how['latency_ms']:g} ms")
    if found[0].name is None:
        options.log("note: the network's file does not name its classes; --class-map FILE gives them")
    facts = {"network": network, **found.to_dict()}
    if output is not None:
        _write(found, facts, output)
    images = "1 image" if len(found) == 1 else f"{len(found)} images"
    options.print_result(facts, as_json, found if output is None else f"wrote {output}: {images}")


def _masks(
    net: "SwitchableModel", photos: tuple[str, ...], folder: str | None, force: bool, as_json: bool, how: _How
) -> None:
    from rsconvert.runtime import write_masks

    if folder is None or Path(folder).suffix in _TEXTS:
        raise ConfigError(f"output is {folder or 'empty'}; masks are files, for which a folder is needed: -o FOLDER.")
    options.refuse_ineffective("cascade", "top_k", "class_map", "batch_size", "workers", where="masks")
    found = write_masks(
        net,
        photos,
        folder,
        force=force,
        resolution=how["resolution"],
        latency_ms=how["latency_ms"],
        device=how["device"],
        amp=how["amp"],
        skip_broken=how["skip_broken"],
    )
    options.print_result(
        {"folder": folder, **found.to_dict()}, as_json, f"{found}\nwrote masks and overlays to {folder}"
    )


def _write(found: "PredictionList", facts: dict[str, object], output: str) -> None:
    from rsconvert.checkpoint import replacing

    text = found.as_csv() if Path(output).suffix == ".csv" else json.dumps(facts, indent=1) + "\n"
    with replacing(output) as part:
        part.write_text(text, encoding="utf-8")
