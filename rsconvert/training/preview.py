"""preview: what a run would do, before it does it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rsconvert.evaluation import choose_precision
from rsconvert.surgery import SwitchableModel
from rsconvert.training.config import FinetuneConfig
from rsconvert.training.distributed import joined_processes
from rsconvert.training.feeding import Feed
from rsconvert.training.learning import learning_parameters
from rsconvert.training.opening import open_for_training
from rsconvert.training.plan import memory_estimate
from rsconvert.training.teacher import create_teacher

__all__ = ["preview"]


def preview(net: SwitchableModel, data: str | Path, config: FinetuneConfig) -> dict[str, Any]:
    """Return the settings of a run, its images, steps and learning parameters, and an estimate of its memory in bytes.

    Raises:
        ConfigError, DataError: as ``finetune``.
    """
    (train, val), outputs = open_for_training(net, data, config)
    with joined_processes(config.device) as processes:
        amp = choose_precision(config.amp, processes.device)
        dtype = next(p.dtype for p in net.parameters() if p.is_floating_point())
        batches = len(Feed(net, train, config, processes, dtype, outputs))
        teacher = create_teacher(net, config, processes.device)
        taught = None if teacher is None else teacher.model
        learning = learning_parameters(net, config.train, alpha=config.labels == "data")
        return {
            **asdict(config),
            "lr": config.peak_lr(len(net.resolutions), processes.world_size),
            "amp": str(amp or dtype).removeprefix("torch."),
            "device": str(processes.device),
            "processes": processes.world_size,
            "train_images": len(train),
            "val_images": len(val),
            "steps": batches // config.grad_accum_steps * config.epochs,
            "learning_parameters": sum(p.numel() for p in learning),
            "memory": memory_estimate(net.to(processes.device), config, amp=amp, teacher=taught),
        }
