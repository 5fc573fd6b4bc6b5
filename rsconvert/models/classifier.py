"""The classifier of a model: the layers whose outputs are the logits, by timm's own record or by a run."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import torch
from torch import nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.models.example import example_input
from rsconvert.models.task import Task, recognised_task

__all__ = ["classifier_keys", "classifier_layers", "count_outputs", "replace_classifier", "zero_parameters"]

# Small ones first, for a run that fails or succeeds there costs next to nothing.
_SIDES = (32, 64, 128, 224)
_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


def classifier_keys(model: nn.Module, task: Task | None = None) -> list[str]:
    """Return the keys of the classifier's tensors, auxiliary heads included; none for a model without logits.

    Args:
        task: None takes the one that the model is recognised by.
    """
    names = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or _final_layers(model, task)
    names = (names,) if isinstance(names, str) else tuple(names)
    return [key for key, _ in model.named_parameters() if key.startswith(tuple(f"{name}." for name in names))]


def classifier_layers(model: nn.Module, task: Task | None = None) -> dict[str, nn.Module]:
    """Return the linear and convolutional layers of the classifier by name, auxiliary heads included."""
    owners = dict.fromkeys(key.rpartition(".")[0] for key in classifier_keys(model, task))
    layers = {owner: model.get_submodule(owner) for owner in owners}
    return {owner: layer for owner, layer in layers.items() if isinstance(layer, _WEIGHTED)}


def count_outputs(model: nn.Module, task: Task | None = None) -> int | None:
    """Return the classes that a model of timm records, elsewhere the width C of the logits (N, C, …); None without.

    Args:
        task: as of ``classifier_keys``.
    """
    recorded = getattr(model, "num_classes", None)
    # timm drops the number from the cfg of a model for features, which may keep the attribute all the same.
    if "num_classes" in (getattr(model, "pretrained_cfg", None) or {}) and isinstance(recorded, int):
        return recorded
    return _run(model, task)[0]


@torch.no_grad()
def zero_parameters(model: nn.Module, keys: list[str]) -> None:
    """Start a new classifier at zero: timm's draw for few classes gives large first logits that wreck the features."""
    parameters = dict(model.named_parameters())
    for key in keys:
        parameters[key].zero_()


def replace_classifier(model: nn.Module, num_classes: int) -> list[str]:
    """Give a model of timm a classifier of zeros by its own method; return the keys.

    Raises:
        AttributeError: the model has no ``reset_classifier``.
    """
    cast(Any, model).reset_classifier(num_classes)
    keys = classifier_keys(model)
    zero_parameters(model, keys)
    return keys


def _final_layers(model: nn.Module, task: Task | None) -> list[str]:
    """Return the last layer that ran with the logits' width, and the last of each child that runs in train mode alone.

    The order of registration says nothing of the order of computation. Of dense logits each child may have a part.
    """
    task = task or recognised_task(model)
    outputs, ran = _run(model, task)
    if outputs is None:
        return []
    widths = {
        name: layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        for name, layer in model.named_modules()
        if isinstance(layer, _WEIGHTED)
    }
    if task.dense:
        return _last_of_children(ran, widths, outputs)
    running = {name.partition(".")[0] for name in ran}
    idle = {child: name for name in widths if (child := name.partition(".")[0]) not in running}
    return [name for name in ran if widths[name] == outputs][-1:] + [n for n in idle.values() if widths[n] == outputs]


def _last_of_children(ran: Sequence[str], widths: Mapping[str, int], outputs: int) -> list[str]:
    """Return the layers at the end of each direct child's run that have the logits' width."""
    children: dict[str, list[str]] = {}
    for name in ran:
        children.setdefault(name.partition(".")[0], []).append(name)
    last = (itertools.takewhile(lambda name: widths[name] == outputs, names[::-1]) for names in children.values())
    return [name for names in last for name in reversed([*names])]


def _run(model: nn.Module, task: Task | None) -> tuple[int | None, list[str]]:
    """Return the width of the logits and the weighted layers in the order of their run, at a size that works."""
    task = task or recognised_task(model)
    for side in _SIDES:
        with suppress(Exception):  # whatever the model's own code raises
            return _observe(copy.deepcopy(model).eval(), side, task)
    return None, []


@torch.no_grad()
def _observe(model: nn.Module, side: int, task: Task) -> tuple[int | None, list[str]]:
    image = example_input(model, side)  # before the hooks: it runs the model, too
    ran: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, _WEIGHTED):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    output = model(image)
    try:
        return int(task.logits(output).shape[1]), ran
    except UnsupportedModelError:
        return None, ran
