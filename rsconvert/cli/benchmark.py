"""The command benchmark."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsconvert.cli.loading import load_network
from rsconvert.cli.options import (
    best_of,
    class_map_option,
    compute_options,
    json_option,
    model_option,
    numbers,
    resolution_list,
)
from rsconvert.cli.printing import print_result
from rsconvert.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import nn

    from rsconvert.surgery import SwitchableModel

__all__ = ["benchmark"]


@click.command()
@click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
@click.option("--resolutions", metavar="LIST", help="Sides in pixels or ranges 96:224:16, trained or not; the trained.")
@click.option("--batch-sizes", default="1", show_default=True, metavar="LIST", help="Images per forward.")
@click.option(
    "--forms",
    default="plain,channels_last",
    show_default=True,
    metavar="LIST",
    help="Of plain, channels_last, compiled, folded.",
)
@click.option("--rounds", type=int, default=30, show_default=True, help="How often each is timed.")
@click.option("--threads", type=int, help="Of torch on the CPU; the default is torch's own.")
@click.option("--data", metavar="DIR", help="Measure top-1 too, on its val/ images, as evaluate does.")
@click.option("--data-root", help="Where a timm data-set string finds its files.")
@class_map_option
@click.option("--store", is_flag=True, help="Keep the table in CHECKPOINT, for rsconvert.for_budget.")
@compute_options
@model_option
@json_option
def benchmark(
    checkpoint: str,
    resolutions: str | None,
    batch_sizes: str,
    forms: str,
    rounds: int,
    threads: int | None,
    store: bool,
    amp: str | None,
    device: str | None,
    model: str | None,
    as_json: bool,
    **data: Any,
) -> None:
    """Measure what CHECKPOINT costs on this machine at each resolution, and the time to switch between them.

    Latency is the median of all rounds, in which everything is timed by turns; memory is what a forward holds at its
    most beside weights and input.
    """
    source = best_of(checkpoint)
    _check_data(data)
    from rsconvert import save
    from rsconvert.evaluation import choose_device, measure_costs, store_costs

    net = load_network(source, model)
    if store:
        _check_writable(source)
    found = measure_costs(
        net.to(choose_device(device)),
        None if resolutions is None else resolution_list(resolutions),
        batch_sizes=numbers(batch_sizes),
        forms=[form.strip() for form in forms.split(",")],
        rounds=rounds,
        threads=threads,
        amp=amp,
        create=_builder(net, model),
        log=lambda line: click.echo(line, err=True),
    )
    if data["data"] is not None:
        found = found.with_top1(_top1(net, [cost.resolution for cost in found.costs], amp, as_json, data))
    if store:
        store_costs(net, found)
        save(net, source)
    facts = {"checkpoint": source, "stored": store, **found.to_dict()}
    print_result(facts, as_json, "\n".join([str(found), *([f"stored in {source}"] if store else [])]))


def _check_data(options: dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value is not None and name != "data"]
    if options["data"] is None and given:
        raise ConfigError(
            f"{given[0]} is {options[given[0]]} without data, so it has no effect. Give --data, or drop it."
        )


def _check_writable(file: str) -> None:
    """Raise before the measuring what would be raised after it."""
    try:
        tempfile.TemporaryFile(dir=Path(file).parent).close()
    except OSError as error:
        raise CheckpointError(
            f"{file} can't be written ({error}), where --store keeps the table; a folder that can is needed. "
            "Copy the file, or drop --store."
        ) from error


def _builder(net: "SwitchableModel", model: str | None) -> Callable[[], "nn.Module"] | None:
    """Return what makes a plain model as the network was made; None if its name is unknown."""
    from rsconvert import create_model
    from rsconvert.models import is_file_name

    source, kwargs = net.source, dict(net.source.model_kwargs)
    name, told = model or source.architecture, kwargs.pop("num_classes", None)
    if name is None:
        return None
    classes = told if is_file_name(source.architecture or "") else source.num_classes
    return partial(create_model, name, num_classes=classes, model_kwargs=kwargs)


def _top1(
    net: "SwitchableModel", resolutions: list[int], amp: str | None, quiet: bool, options: dict[str, Any]
) -> dict[int, float]:
    from rsconvert import evaluate

    options = {**options, "workers": 2 if options["workers"] is None else options["workers"]}
    sides = list(dict.fromkeys(resolutions))
    result = evaluate(net, resolutions=sides, device=net.alpha.device, amp=amp, progress=not quiet, **options)
    return {r: row.top1 for r, row in result.resolutions.items() if isinstance(r, int)}
