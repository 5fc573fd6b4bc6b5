"""Optimizer with its schedule, both of timm; alpha has a rate of its own."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler

from rsconvert.surgery import SwitchableModel
from rsconvert.training.config import FinetuneConfig

__all__ = ["create_optimizer", "create_schedule", "parameter_groups"]


def parameter_groups(net: SwitchableModel, config: FinetuneConfig) -> list[dict[str, Any]]:
    """Split the trainable parameters: matrices decay, vectors (BatchNorm, biases) do not unless asked, alpha apart."""
    learnt = [p for p in net.parameters() if p.requires_grad and p is not net.alpha]
    decayed = [p for p in learnt if p.ndim > 1 or config.decay_all]
    spared = [p for p in learnt if p.ndim <= 1 and not config.decay_all]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": spared, "weight_decay": 0.0},
        {"params": [net.alpha], "weight_decay": config.weight_decay if config.decay_all else 0.0, "lr": config.alpha_lr},
    ]
    return [group for group in groups if group["params"]]


def create_optimizer(net: SwitchableModel, config: FinetuneConfig) -> torch.optim.Optimizer:
    """Return timm's optimizer over the trainable parameters of a network."""
    name = {"sgd": "nesterov"}.get(config.optimizer, config.optimizer)
    betas = {"betas": (config.momentum, 0.999)} if name == "adamw" else {}
    groups = parameter_groups(net, config)
    lr = config.peak_lr(len(net.resolutions))
    return create_optimizer_v2(groups, opt=name, lr=lr, momentum=config.momentum, **betas)


def create_schedule(optimizer: torch.optim.Optimizer, config: FinetuneConfig, steps_per_epoch: int) -> Scheduler:
    """Return timm's schedule, to be advanced by ``step_update`` with the number of steps done.

    Each group goes from 0 in ``warmup_epochs`` to its own peak, then towards 0; ``constant`` stays there.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    constant = config.schedule == "constant"
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="step" if constant else config.schedule,
        decay_rate=1.0,
        decay_epochs=config.epochs * steps_per_epoch if constant else None,
        num_epochs=config.epochs * steps_per_epoch,
        warmup_epochs=warmup,
        warmup_lr=0.0,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return schedule
