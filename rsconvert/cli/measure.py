"""Commands that measure a network: evaluate, benchmark."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import click

from rsconvert.cli import options
from rsconvert.cli.loading import load_baselines, load_network
from rsconvert.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from rsconvert.data import Split
    from rsconvert.evaluation import Benchmark, Predictions
    from rsconvert.surgery import SwitchableModel

__all__ = ["benchmark", "evaluate"]


class _Evaluated(options.Labelled, options.MaskOptions):
    """The options of `evaluate` that say which images are read, and how."""


class _Labels(TypedDict):
    """The options of `benchmark` that need --data."""

    workers: int
    data_root: str | None
    class_map: str | None
    split: "Split | float"
    skip_broken: int


@click.command(short_help="Measure the accuracy at each resolution.")
@options.checkpoint
@options.data
@options.resolutions(
    "Sides in pixels, trained or not: 224,160, ranges 96:256:16, pairs HEIGHTxWIDTH; the trained ones.",
    options.size_list,
)
@options.baselines
@click.option("--per-class", is_flag=True, help="Show the top-1, or the intersection over union, of each class too.")
@options.output("Write the table too: .csv with all figures, or .md.")
@click.option("--logits", type=click.Path(), metavar="FILE", help="Write all logits too, as safetensors.")
@options.labelled
@options.masks
@options.result
def evaluate(
    checkpoint: str,
    data: str,
    resolutions: tuple[Any, ...] | None,
    baselines: tuple[str, ...],
    per_class: bool,
    output: str | None,
    logits: str | None,
    model: str | None,
    force: bool,
    as_json: bool,
    **reading: Unpack[_Evaluated],
) -> None:
    """Measure CHECKPOINT at each resolution on the val/ images of DIR, and the ensemble of the trained ones.

    DIR may be a plain folder of classes, and lack some of those that the network knows by name. A resolution between
    trained ones runs on interpolated BatchNorm, one beyond them on the nearest set. An interval is Wilson's, of 95 %;
    a baseline's star is McNemar's test on the same images, p < 0.05. Of segmentation the scores are those of the masks
    at their own size, with intervals by the bootstrap over images. Under torchrun, processes share the images.
    """
    for path in (output, logits):
        if path is not None:
            options.refuse_existing(path, force)
    if output is not None and Path(output).suffix not in (".csv", ".md"):
        raise ConfigError(f"output is {output}; a name in .csv or .md is accepted. Rename it, or use --json.")
    from rsconvert.evaluation import doubts, joined_processes, predict, with_baselines

    net = load_network(checkpoint, model)
    with joined_processes(reading["device"]) as processes:
        found = predict(
            with_baselines(net, load_baselines(baselines, net, model)),
            data,
            net.resolutions if resolutions is None else resolutions,
            batch_size=reading["batch_size"],
            workers=reading["workers"],
            device=processes.device,
            amp=reading["amp"],
            data_root=reading["data_root"],
            class_map=reading["class_map"],
            masks=options.mask_reading(reading["label_offset"], reading["resize"], reading["class_names"]),
            split=reading["split"],
            skip_broken=reading["skip_broken"],
            keep_logits=logits is not None,
            progress=not as_json and processes.leads,
            processes=processes,
        )
    if processes.leads:
        for line in doubts(found):
            options.log(f"note: {line}")
        _write(found, output, logits, per_class, as_json)


def _write(found: "Predictions", output: str | None, logits: str | None, per_class: bool, as_json: bool) -> None:
    from rsconvert.checkpoint import replacing
    from rsconvert.evaluation import save_logits, summarize

    if logits is not None:
        save_logits(found, logits)
    result = summarize(found, per_class=per_class)
    if output is not None:
        with replacing(output) as part:
            table = result.as_csv() if Path(output).suffix == ".csv" else result.as_markdown()
            part.write_text(table, encoding="utf-8")
    options.print_result(result.to_dict(), as_json, result)


@click.command(short_help="Measure time, memory and accuracy of each path, here.")
@options.checkpoint
@options.resolutions("Sides in pixels or ranges 96:224:16, trained or not; the trained.")
@options.defaulted("evaluation.measure_costs", "--batch-sizes", metavar="LIST", help="Images per forward.")
@click.option(
    "--forms",
    default="plain,channels_last",
    show_default=True,
    metavar="LIST",
    help="Of plain, channels_last, compiled, folded, int8.",
)
@options.defaulted("evaluation.measure_costs", "--rounds", type=int, help="How often each is timed.")
@click.option("--threads", type=int, help="Of torch on the CPU; the default is torch's own.")
@click.option("--data", metavar="DIR", help="Measure top-1 or mIoU too, on its val/ images, as evaluate does.")
@options.amp
@options.device
@options.workers
@options.data_root
@options.class_map
@options.split
@options.skip_broken
@click.option("--store", is_flag=True, help="Keep the table in CHECKPOINT, for rsconvert.for_budget.")
@options.model
@options.as_json
def benchmark(
    checkpoint: str,
    resolutions: tuple[int, ...] | None,
    batch_sizes: str,
    forms: str,
    rounds: int,
    threads: int | None,
    data: str | None,
    amp: str | None,
    device: str | None,
    store: bool,
    model: str | None,
    as_json: bool,
    **labels: Unpack[_Labels],
) -> None:
    """Measure what CHECKPOINT costs on this machine at each resolution, and the time to switch between them.

    Latency is the median of all rounds, in which everything is timed in turn; memory is what a forward holds at its
    peak in addition to weights and input.
    """
    if data is None:
        options.refuse_given(*labels, without="data")
    from rsconvert import export, save
    from rsconvert.checkpoint import builder_of, file_of
    from rsconvert.evaluation import choose_device, measure_costs, store_costs

    source = file_of(checkpoint)
    net = load_network(source, model)
    _check(net, data, source if store else None)
    found = measure_costs(
        net.to(choose_device(device)),
        resolutions,
        batch_sizes=options.numbers(batch_sizes),
        forms=options.words(forms),
        rounds=rounds,
        threads=threads,
        amp=amp,
        create=builder_of(net, model),
        makers={"int8": export.int8_paths},
        log=options.log,
    )
    if data is not None:
        found = _with_scores(net, found, data, amp, as_json, **labels)
    if store:
        store_costs(net, found)
        save(net, source)
    stored = f"\nstored in {source}" if store else ""
    options.print_result({"checkpoint": source, "stored": store, **found.to_dict()}, as_json, f"{found}{stored}")


def _with_scores(
    net: "SwitchableModel", costs: "Benchmark", data: str, amp: str | None, quiet: bool, **labels: Unpack[_Labels]
) -> "Benchmark":
    from rsconvert import evaluate
    from rsconvert.evaluation import predict, summarize
    from rsconvert.export import int8_paths

    sides = list(dict.fromkeys(cost.resolution for cost in costs.costs))
    found = evaluate(net, data, sides, device=net.alpha.device, amp=amp, progress=not quiet, **labels)
    int8 = {}
    quantized = [cost.resolution for cost in costs.costs if cost.form == "int8"]
    for side, path in int8_paths(net, list(dict.fromkeys(quantized))).items() if quantized else ():
        own = summarize(predict({"network": path}, data, [side], device="cpu", progress=not quiet, **labels))
        int8[side] = own.resolutions[side].score
    scores = {r: row.score for r, row in found.resolutions.items() if isinstance(r, int)}
    return costs.with_scores(scores, net.source.task.metric, int8)


def _check(net: "SwitchableModel", data: str | None, file: str | None) -> None:
    """Raise before the measuring what would be raised after it: of images, and of the file to write."""
    from rsconvert.evaluation import check_colours

    if data is not None:
        check_colours(net)
    if file is not None:
        _check_writable(file)


def _check_writable(file: str) -> None:
    try:
        tempfile.TemporaryFile(dir=Path(file).parent).close()
    except OSError as error:
        raise CheckpointError(
            f"{file} can't be written ({error}), where --store keeps the table; a folder that can is needed. "
            "Copy the file, or drop --store."
        ) from error
