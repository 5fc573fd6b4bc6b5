"""Optimizer with its schedule, both of timm; alpha has a rate of its own."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.scheduler_factory import create_scheduler_v2

from rsconvert.surgery import SwitchableModel
from rsconvert.training.config import FinetuneConfig

__all__ = ["create_optimizer", "create_schedule", "parameter_groups"]


def parameter_groups(net: SwitchableModel, config: FinetuneConfig) -> list[dict[str, Any]]:
    """Split the trainable parameters: matrices decay, vectors (BatchNorm, biases) do not unless asked, alpha apart."""
    others = [p for p in net.parameters() if p is not net.alpha]
    decay = config.weight_decay if config.decay_all else 0.0
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": decay},
        {"params": [net.alpha], "weight_decay": decay, "lr": config.alpha_lr},
    ]
    for group in groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    return [group for group in groups if group["params"]]


def create_optimizer(net: SwitchableModel, config: FinetuneConfig) -> torch.optim.Optimizer:
    """Return timm's optimizer over the trainable parameters of a network."""
    name = {"sgd": "nesterov"}.get(config.optimizer, config.optimizer)
    arguments: dict[str, Any] = (
        {"betas": (config.momentum, 0.999)} if name == "adamw" else {"momentum": config.momentum}
    )
    lr = config.peak_lr(len(net.resolutions))
    optimizer: torch.optim.Optimizer = create_optimizer_v2(parameter_groups(net, config), opt=name, lr=lr, **arguments)
    return optimizer


def create_schedule(optimizer: torch.optim.Optimizer, config: FinetuneConfig, steps_per_epoch: int) -> Scheduler:
    """Return timm's schedule; before each step call ``step_update`` with the number of steps done.

    Of T steps the first W = warmup_epochs · steps_per_epoch lead each group from 0 to its own peak: peak · t / W. Then,
    with u = (t - W) / (T - W), ``cosine`` is peak · (1 + cos(πu)) / 2, ``poly`` is peak · (1 - u), ``constant`` the
    peak.
    """
    warmup = int(config.warmup_epochs * steps_per_epoch)
    constant = config.schedule == "constant"
    schedule: Scheduler
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="step" if constant else config.schedule,
        # The factor of each fall of "step" and the power of "poly".
        decay_rate=1.0,
        num_epochs=config.epochs * steps_per_epoch - warmup,
        warmup_epochs=warmup,
        warmup_lr=0.0,
        # Without it the cosine begins during the warm-up, and the peak is never reached.
        warmup_prefix=True,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return schedule
