"""preview: what a run would do, before it does it."""

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rsconvert.data import Interrupts
from rsconvert.evaluation import amp_name, joined_processes
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.run.epochs import Run
from rsconvert.training.run.opening import open_for_training
from rsconvert.training.run.plan import memory_estimate
from rsconvert.training.step import Teacher

__all__ = ["preview"]


def preview(net: SwitchableModel, data: str | Path, config: FinetuneConfig) -> dict[str, Any]:
    """Return the settings of a run, its images, steps and learning parameters, and an estimate of its memory in bytes.

    The network is left as ``finetune`` would take it: on the device, with what learns marked.

    Raises:
        ConfigError, DataError: as ``finetune``.
    """
    samples, outputs = open_for_training(net, data, config)
    with (
        joined_processes(config.device) as processes,
        closing(Run(net, samples, config, processes, None, Interrupts(), outputs=outputs)) as run,
    ):
        facts, objective = run.facts(), run.stepper.objective
        taught = objective.teacher.model if isinstance(objective.teacher, Teacher) else None
        return {
            **asdict(config),
            "lr": facts["peak_lr"],
            "amp": amp_name(run.amp),
            "device": str(processes.device),
            "processes": processes.world_size,
            "train_images": len(samples[0]),
            "val_images": len(samples[1]),
            "steps": facts["steps_per_epoch"] * config.epochs,
            "learning_parameters": sum(p.numel() for p in net.parameters() if p.requires_grad),
            "memory": memory_estimate(net, config, amp=run.amp, teacher=taught),
        }
