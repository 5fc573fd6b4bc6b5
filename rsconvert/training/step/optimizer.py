"""What learns, in which groups and at which rate: timm's optimizer and schedule; alpha has a rate of its own."""

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.scheduler_factory import create_scheduler_v2
from torch import nn

from rsconvert.errors import ConfigError
from rsconvert.models import classifier_keys
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.step.defaults import fill_defaults

__all__ = ["create_optimizer", "create_schedule", "learning_parameters", "parameter_groups"]

# timm's parameters per layer for a model that has no order of layers.
_DOZEN = 12
_ENCODERS = ("encoder", "backbone")


def learning_parameters(net: SwitchableModel, part: str, *, alpha: bool = True) -> set[nn.Parameter]:
    """Return the parameters that learn when ``all`` do, the smaller ``bn`` sets, or the ``head``; and alpha.

    Private classifiers all learn with ``head``, and none with ``bn``.

    Raises:
        ConfigError: ``part`` is ``bn`` for a network without a second private set, or with a new classifier; ``head``
            for one without a classifier.
    """
    found = _head(net) if part == "head" else _smaller_sets(net) if part == "bn" else net.parameters()
    learning = {*found, net.alpha} - (set() if alpha else {net.alpha})
    if not learning:
        raise ConfigError(f"train is {part} and alpha is frozen, but the network has no such parameters.")
    return learning


def _head(net: SwitchableModel) -> list[nn.Parameter]:
    keys = set(classifier_keys(net.at(net.native), net.source.task))
    if not keys:
        raise ConfigError("train is head, but the network has no classifier; all or bn is accepted.")
    return [parameter for r in net.resolutions for name, parameter in net.at(r).named_parameters() if name in keys]


def _smaller_sets(net: SwitchableModel) -> list[nn.Parameter]:
    if net.source.new_classifier:
        raise ConfigError(
            "train is bn, but the classifier is new and would stay untrained; all or head is accepted. Train it first."
        )
    sets = [bn for _, switchable in net.switchable_bns() for bn in switchable.sets[1:]]
    if not sets:
        raise ConfigError(
            "train is bn, but the native BN set is the network's only one; all or head is accepted. Add resolutions "
            "with private BatchNorms."
        )
    return [parameter for bn in sets for parameter in bn.parameters()]


def parameter_groups(net: SwitchableModel, config: FinetuneConfig) -> list[dict[str, Any]]:
    """Split the trainable parameters: matrices decay, vectors (BatchNorm, biases) do not unless asked, alpha apart.

    Layers have a group each if their rates differ; the first group has the largest ``lr_scale``, a factor of the rate
    that timm's schedule applies.

    Raises:
        ConfigError: ``layer_decay`` has no effect, because the network is one layer; ``encoder_lr``, because nothing in
            it is named encoder or backbone.
    """
    scales = {} if config.layer_decay is None else _scales(net, config.layer_decay)
    if config.encoder_lr is not None:
        scales = dict.fromkeys(_encoder(net), config.encoder_lr)
    split: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in net.parameters():
        if parameter is not net.alpha and parameter.requires_grad:
            split.setdefault((scales.get(parameter, 1.0), parameter.ndim > 1), []).append(parameter)
    spared = config.weight_decay if config.decay_all else 0.0
    groups: list[dict[str, Any]] = [
        {"params": split[scale, decays], "weight_decay": config.weight_decay if decays else spared, "lr_scale": scale}
        for scale, decays in sorted(split, reverse=True)
    ]
    if net.alpha.requires_grad:
        groups.append({"params": [net.alpha], "weight_decay": spared, "lr": config.alpha_lr})
    return groups


def _encoder(net: SwitchableModel) -> Iterator[nn.Parameter]:
    """Yield the parameters of the part that is named encoder or backbone, of every path."""
    names = [name for name, _ in net.at(net.native).named_children() if name in _ENCODERS]
    if not names:
        raise ConfigError(
            f"encoder_lr has no effect, because no part of the network is named {' or '.join(_ENCODERS)}. Leave it out."
        )
    for resolution in net.resolutions:
        for name in names:
            yield from net.at(resolution).get_submodule(name).parameters()


def create_optimizer(net: SwitchableModel, config: FinetuneConfig, *, processes: int = 1) -> torch.optim.Optimizer:
    """Return timm's optimizer over the trainable parameters of a network.

    Args:
        processes: how many train together, for the rate that follows from the images per step.
    """
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        parameter_groups(net, config),
        opt="nesterov" if config.optimizer == "sgd" else config.optimizer,
        lr=fill_defaults(net, config, processes=processes).lr,
        # timm takes of these two what the optimizer has.
        momentum=config.momentum,
        betas=(config.momentum, 0.999),
        # Here torch can step all parameters in one kernel; it leaves that to the caller.
        fused=net.alpha.device.type in ("cpu", "cuda") or None,
    )
    if config.drawn_views(len(net.resolutions)) < len(net.resolutions):
        _begin_momentum(optimizer)
    return optimizer


def _begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Start SGD's momenta at 0, which changes no step.

    A fused step needs the momenta of all parameters or of none; some paths are not drawn in the first step.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _scales(net: SwitchableModel, layer_decay: float) -> dict[nn.Parameter, float]:
    """Return the factor of each parameter's rate; a set of any resolution has its layer's."""
    layers = _layers(net.at(net.native))
    last = max(layers.values())
    if last == 0:
        raise ConfigError(
            "layer_decay has no effect, because the network's parameters are all in one layer; a network of several "
            "is needed. Leave it out."
        )
    named = (pair for resolution in net.resolutions for pair in net.at(resolution).named_parameters())
    return {parameter: layer_decay ** (last - layers.get(name, last)) for name, parameter in named}


def _layers(model: nn.Module) -> dict[str, int]:
    """Return the layer of each parameter by timm's grouping; without one, of each dozen, with the classifier last."""
    if hasattr(model, "group_matcher"):
        layers: dict[str, int] = group_parameters(model, cast(Any, model).group_matcher(coarse=False), reverse=True)
        return layers
    head = classifier_keys(model)
    trunk = [name for name, _ in model.named_parameters() if name not in head]
    return {name: i // _DOZEN for i, name in enumerate(trunk)} | dict.fromkeys(head, math.ceil(len(trunk) / _DOZEN))


def create_schedule(optimizer: torch.optim.Optimizer, config: FinetuneConfig, steps_per_epoch: int) -> Scheduler:
    """Return timm's schedule; before each step call ``step_update`` with the number of steps done.

    Of T steps the first W = warmup_epochs · steps_per_epoch lead each group from 0 to its own peak: peak · t / W. Then,
    with u = (t - W) / (T - W), ``cosine`` is peak · (1 + cos(πu)) / 2, ``poly`` is peak · (1 - u)^poly_power,
    ``constant`` the peak; ``step`` is a tenth of it from the first of ``lr_steps`` on, counted in epochs from the
    beginning, a hundredth from the second on, and so on.
    """
    warmup = int(config.warmup_epochs * steps_per_epoch)
    schedule: Scheduler
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched={"constant": "step", "step": "multistep"}.get(config.schedule, config.schedule),
        # The factor of each fall, and the power of "poly".
        decay_rate=0.1 if config.schedule == "step" else config.poly_power,
        # timm counts from the end of the warm-up, and lets the rate fall one step early.
        decay_milestones=[epoch * steps_per_epoch - warmup + 1 for epoch in config.lr_steps or ()],
        num_epochs=config.epochs * steps_per_epoch - warmup,
        warmup_epochs=warmup,
        warmup_lr=0.0,
        # Without it the cosine begins during the warm-up, and the peak is never reached.
        warmup_prefix=True,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return schedule
