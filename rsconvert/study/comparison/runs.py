"""Runs of a comparison: each network trained and measured, unless that is done, and a report after each seed."""

import itertools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch

from rsconvert.checkpoint import load, owned, replacing, save, subset, write_tensors
from rsconvert.evaluation import NETWORK, choose_device, predict, processor_name, summarize
from rsconvert.study.comparison.findings import Comparison, tabulate
from rsconvert.study.comparison.fits import FITS
from rsconvert.study.comparison.plan import Plan, PlannedRun
from rsconvert.study.comparison.writeup import write_report
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.text import read_json
from rsconvert.training import Row, finetune, masks_of

__all__ = ["compare", "complete", "machine_facts", "starting_network"]


def compare(
    plan: Plan,
    *,
    command: str | None = None,
    progress: bool = False,
    log: Callable[[str], None] = lambda line: None,
    on_epoch: Callable[[Row], None] | None = None,
) -> Comparison:
    """Train what a plan lacks, measure it, and write the report: ``report.md`` in the plan's folder with its figures.

    One seed after the other, so that an interruption leaves whole seeds; the report is written after each. Called
    again with the same plan it resumes.

    Args:
        command: the command line, for the report.
        progress: show bars on stderr.
        log: is called with a line before each run.
        on_epoch: is called with each new row.
    Raises:
        TrainingError, CheckpointError, DataError, ConfigError: as ``finetune`` and ``evaluate``.
    """
    plan.make_folder()
    numbers = itertools.count(1)
    with owned(plan.folder):
        plan.write_settings()
        for _, runs in itertools.groupby(plan.runs, key=lambda run: run.seed):
            for run in runs:
                log(f"run {next(numbers)}/{len(plan.runs)}, {run.name}: {run.status}")
                complete(plan, run, progress=progress, on_epoch=on_epoch)
            found = tabulate(plan)
            write_report(found, command)
    return found


def complete(
    plan: Plan, run: PlannedRun, *, progress: bool = False, on_epoch: Callable[[Row], None] | None = None
) -> None:
    """Make a run's network, or what is left of that, and measure it at the resolutions that are not measured yet.

    Raises:
        TrainingError, CheckpointError, DataError, ConfigError: as ``finetune`` and ``evaluate``.
    """
    result = run.read_result()
    if not result:
        made = _fitted(plan, run) if run.method.fit else _trained(plan, run, progress, on_epoch)
        result = {**made, "machine": machine_facts(run.config.device)}
    held, right = result.get("resolutions", {}), run.read_hits()
    if missing := [r for r in run.tested(plan.resolutions) if str(r) not in held or str(r) not in right]:
        found = _measured(plan, run, missing, progress)
        result = {**result, "count": found["count"], "resolutions": held | found["resolutions"]}
        with replacing(run.result) as part:
            part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(run.folder / "state", ignore_errors=True)  # twice the network and more, of no use to a finished run


def _trained(plan: Plan, run: PlannedRun, progress: bool, on_epoch: Callable[[Row], None] | None) -> dict[str, Any]:
    """Train a run's network into its folder; return the facts of `_training_facts`."""
    net = starting_network(plan.network(run.method), run)
    rows = finetune(net, plan.samples, run.folder, run.config, resume=True, progress=progress, on_epoch=on_epoch)
    return _training_facts(run, rows)


def _fitted(plan: Plan, run: PlannedRun) -> dict[str, Any]:
    """Write a network that needs no training into the run's folder; return the seconds that it took."""
    start = time.perf_counter()
    net = FITS[str(run.method.fit)](plan, run)
    run.folder.mkdir(parents=True, exist_ok=True)
    save(net, run.folder / "last.safetensors")
    return {"seconds": round(time.perf_counter() - start, 3)}


def starting_network(net: SwitchableModel, run: PlannedRun) -> SwitchableModel:
    """Return an independent network for a run, with the weights of the one that is compared."""
    small = subset(net, run.resolutions)
    if run.method.private:
        return small
    shared = make_switchable(small.extract(small.native), small.resolutions, private=False, build=small.build)
    shared.source = replace(small.source)
    return shared


def _measured(plan: Plan, run: PlannedRun, resolutions: list[int], progress: bool) -> dict[str, Any]:
    """Measure a run's network; keep which images it gets right. Return the facts of the evaluation."""
    # Out of the file, for it holds the moving average if there is one.
    start = plan.network(run.method)
    trained = load(run.folder / "last.safetensors", start.extract(start.native), build=start.build)
    found = predict(
        {NETWORK: trained},
        plan.samples[1],
        resolutions,
        batch_size=max(64, run.config.batch_size),
        workers=run.config.workers,
        device=run.config.device,
        amp=run.config.amp,
        class_map=run.config.class_map,
        masks=masks_of(run.config) if trained.source.task.dense else None,
        progress=progress,
    )
    if found.overlaps:
        right = {str(r): found.overlaps[NETWORK][r].counts for r in resolutions}
    else:
        right = {str(r): found.right(NETWORK, r).to(torch.uint8) for r in resolutions}
    write_tensors({**run.read_hits(), **right}, run.hits, {"format": "pt"})
    return summarize(found).to_dict()


def _training_facts(run: PlannedRun, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the seconds of training, without the evaluations, the images, and the precision."""
    config = read_json(run.folder / "config.json")
    images = config["steps_per_epoch"] * run.config.batch_size * run.config.grad_accum_steps
    return {
        "images": images * len(rows),
        "seconds": round(sum(images / row["images_per_second"] for row in rows), 3),
        "precision": config["precision"],
    }


def machine_facts(device: str | None) -> dict[str, Any]:
    """Return the name of the processor or GPU behind a device, the threads, and the versions of the libraries."""
    where = choose_device(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else processor_name()
    libraries = {library: version(library) for library in ("torch", "torchvision", "timm")}
    return {"device": where.type, "name": name, "threads": torch.get_num_threads(), **libraries}
