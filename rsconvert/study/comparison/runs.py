"""One run of a comparison: the network that it starts from, its training, its evaluation; what is done is read."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rsconvert.checkpoint import load, replacing, subset
from rsconvert.errors import CheckpointError
from rsconvert.evaluation import evaluate
from rsconvert.study.comparison.plan import Plan, PlannedRun
from rsconvert.study.comparison.run_machine import machine_facts
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.training import Row, finetune

__all__ = ["complete", "read_result", "starting_network"]


def complete(
    plan: Plan, run: PlannedRun, *, progress: bool = False, on_epoch: Callable[[Row], None] | None = None
) -> None:
    """Train a run, or what is left of it, and measure its last network where that is not done yet.

    Raises:
        TrainingError, CheckpointError, DataError, ConfigError: as ``finetune`` and ``evaluate``.
    """
    result = read_result(run)
    if not result:
        net = starting_network(plan.net, run)
        rows = finetune(net, plan.samples, run.folder, run.config, resume=True, progress=progress, on_epoch=on_epoch)
        result = {**_training_facts(run, rows), "machine": machine_facts(run.config.device)}
    held = result.get("resolutions", {})
    if missing := [r for r in plan.resolutions if str(r) not in held]:
        found = _measured(plan, run, missing, progress)
        result = {**result, "count": found["count"], "resolutions": held | found["resolutions"]}
        with replacing(run.result) as part:
            part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(run.folder / "state", ignore_errors=True)  # twice the network and more, of no use to a finished run


def read_result(run: PlannedRun) -> dict[str, Any]:
    """Return what is known of a finished run; nothing of another one.

    Raises:
        CheckpointError: its file is damaged.
    """
    if not run.result.is_file():
        return {}
    try:
        return dict(json.loads(run.result.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{run.result} can't be read ({error}); what compare wrote is needed. Delete its folder."
        ) from error


def starting_network(net: SwitchableModel, run: PlannedRun) -> SwitchableModel:
    """Return an independent network for a run, with the weights of the one that is compared."""
    small = subset(net, run.resolutions)
    if run.method.private:
        return small
    shared = make_switchable(small.extract(small.native), small.resolutions, private=False, build=small.build)
    shared.source = replace(small.source)
    return shared


def _measured(plan: Plan, run: PlannedRun, resolutions: list[int], progress: bool) -> dict[str, Any]:
    # Out of the file, for it holds the moving average if there is one.
    trained = load(run.folder / "last.safetensors", plan.net.extract(plan.net.native), build=plan.net.build)
    return evaluate(
        trained,
        plan.samples[1],
        resolutions,
        batch_size=max(64, run.config.batch_size),
        workers=run.config.workers,
        device=run.config.device,
        amp=run.config.amp,
        class_map=run.config.class_map,
        progress=progress,
    ).to_dict()


def _training_facts(run: PlannedRun, rows: Sequence[Row]) -> Mapping[str, Any]:
    """Return the time that the epochs took, apart from evaluations, and the images in them."""
    told = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    images = told["steps_per_epoch"] * run.config.batch_size * run.config.grad_accum_steps
    return {
        "images": images * len(rows),
        "seconds": round(sum(images / row["images_per_second"] for row in rows), 3),
        "precision": told["precision"],
    }
