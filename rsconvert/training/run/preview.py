"""Before a run: its images seen to fit the network, and what it would do and hold in memory."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from rsconvert.data import Interrupts, Pairs, Samples, open_train_val, without_broken
from rsconvert.errors import ConfigError, DataError
from rsconvert.evaluation import (
    amp_name,
    autocast,
    check_classes,
    check_pairs,
    float_dtype,
    joined_processes,
    launched_rank,
    mapped_outputs,
    open_labelled,
)
from rsconvert.models import example_input
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.run.epochs import Run
from rsconvert.training.step import Objective, Teacher, check_task, masks_of

__all__ = ["memory_estimate", "open_for_training", "preview"]

# The smallest batches with which every BatchNorm trains; two of them show what grows with the batch.
_FEW, _MORE = 2, 3


def open_for_training(
    net: SwitchableModel, data: str | Path | tuple[Samples, Samples], config: FinetuneConfig
) -> tuple[tuple[Samples, Samples], tuple[int, ...] | None]:
    """Return the splits train and val, and the network's output for each of their classes if a class map gives it.

    Raises:
        ConfigError: the network's weights are of a type that does not learn.
        DataError: there is no such data; the classes do not fit the network, or each other; more images can't be read
            than ``skip_broken`` lets pass.
    """
    if (dtype := float_dtype(net)) not in (torch.float32, torch.float64):
        raise ConfigError(
            f"the network's weights are {str(dtype).removeprefix('torch.')}; float32 or float64 learns. "
            "Call net.float() before, and choose half precision by amp."
        )
    check_task(net, config)
    if not isinstance(data, str | Path):
        _refuse_split(config, "opened splits are not divided")
    train, val = _opened(net, str(data), config) if isinstance(data, str | Path) else data
    outputs = mapped_outputs(train, config.class_map)
    check_classes(net, train, outputs)
    check_pairs(net, val)
    _check_ignored(net, train, val)
    if len(val) == 0:
        raise DataError("the val set is empty; each epoch ends with an evaluation on it. Add images.")
    if train.classes != val.classes:
        raise DataError(
            f"train has the classes {_listed(train.classes)}, val {_listed(val.classes)}; both need the same ones. "
            "Open the splits of one data set."
        )
    train, val = without_broken((train, val), config.skip_broken, workers=config.workers, quiet=launched_rank() > 0)
    return (train, val), outputs


def _check_ignored(net: SwitchableModel, *splits: Samples) -> None:
    """Raise a DataError for opened masks that ignore another value than the loss does."""
    wanted = net.source.task.ignore_index
    for each in splits:
        if isinstance(each, Pairs) and each.reading.ignore_index != wanted:
            raise DataError(
                f"{each.label} was opened with ignore_index {each.reading.ignore_index}, and the network ignores "
                f"{wanted}; the same value is needed. Open it with that."
            )


def _opened(net: SwitchableModel, data: str, config: FinetuneConfig) -> tuple[Samples, Samples]:
    if not net.source.task.dense:
        return open_train_val(data, root=config.data_root, share=config.split)
    _refuse_split(config, "a plain folder of classes alone is divided")
    ask = partial(open_labelled, net, data, masks=masks_of(config), root=config.data_root)
    return ask("train"), ask("val")


def _refuse_split(config: FinetuneConfig, reason: str) -> None:
    if config.split is not None:
        raise ConfigError(f"split is {config.split} and has no effect, because {reason}. Leave it out.")


def _listed(classes: tuple[str, ...] | None) -> str:
    return "without names" if classes is None else ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")


def preview(net: SwitchableModel, data: str | Path, config: FinetuneConfig) -> dict[str, Any]:
    """Return the settings of a run, its images, steps and learning parameters, and an estimate of its memory in bytes.

    The network is left as ``finetune`` would take it: on the device, with what learns marked.

    Raises:
        ConfigError, DataError: as ``finetune``.
    """
    samples, outputs = open_for_training(net, data, config)
    with (
        joined_processes(config.device) as processes,
        closing(Run(net, samples, config, processes, None, Interrupts(), outputs=outputs, planned=True)) as run,
    ):
        facts, teacher = run.facts(), run.stepper.objective.teacher
        return {
            **asdict(run.config),
            "amp": amp_name(run.amp),
            "device": str(processes.device),
            "processes": processes.world_size,
            "train_images": len(samples[0]),
            "val_images": len(samples[1]),
            "steps": facts["steps_per_epoch"] * config.epochs,
            "learning_parameters": sum(p.numel() for p in net.parameters() if p.requires_grad),
            "memory": memory_estimate(
                net, config, amp=run.amp, teacher=teacher.model if isinstance(teacher, Teacher) else None
            ),
        }


def memory_estimate(
    net: SwitchableModel, config: FinetuneConfig, *, amp: torch.dtype = torch.float32, teacher: nn.Module | None = None
) -> dict[str, int]:
    """Return the bytes that training holds on its device when a step's forward is done.

    Counted are ``weights`` with buffers, ``gradients``, the ``optimizer``'s states, the moving ``average``, the
    ``mixture`` with the start, the ``teacher``, the normalized ``views`` of a batch, the ``activations`` kept for
    backward, and their ``total``. The activations are those of all views, or with ``low_memory`` of the largest one
    alone: a copy of the network runs on two small batches, and a line through what it keeps gives the batch of the
    run. Where ``views`` are drawn, those of the largest draw count. Not counted are working memory of the layers,
    the loss, and with ``grad_checkpointing`` the part that backward computes anew.

    Args:
        net: is left as it is, and so are torch's global generators.
        amp: autocast's type, as of ``choose_precision``.
        teacher: another network in the ensemble's place.
    Raises:
        ConfigError: ``train`` does not fit the network.
        TrainingError: the network does not run in train mode at a size.
    """
    objective = Objective(copy.deepcopy(net), replace(config, compile="off"), amp).train()
    own, layout = objective.net, torch.channels_last if config.channels_last else torch.contiguous_format
    own.to(memory_format=layout)
    sizes = config.view_sizes or own.resolutions
    drawn = {*range(config.drawn_views(len(sizes)) - 1), len(sizes) - 1}
    views = {
        place: example_input(own.at(own.resolutions[place]), sizes[place], _MORE).to(memory_format=layout)
        for place in sorted(drawn)
    }
    weights, trained = _bytes(_tensors(own)), _bytes(p for p in own.parameters() if p.requires_grad)
    parts = {
        "weights": weights,
        "gradients": trained,
        "optimizer": trained * (2 if config.optimizer == "adamw" else int(config.momentum > 0)),
        "average": weights if config.ema_decay else 0,
        "mixture": 2 * weights if objective.config.start_share else 0,
        "teacher": 0 if teacher is None else _bytes(_tensors(teacher)),
        "views": _bytes(views.values()) // _MORE * config.batch_size,
        "activations": _activations(objective, views),
    }
    return {**parts, "total": sum(parts.values())}


def _activations(objective: Objective, views: Mapping[int, Tensor]) -> int:
    config, device = objective.config, views[0].device
    used = [max(views, key=lambda place: views[place].shape[-1])] if config.low_memory else views
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        few, more = (_kept(objective, {place: views[place][:n] for place in used}) for n in (_FEW, _MORE))
    return few + (more - few) * (config.batch_size - _FEW) // (_MORE - _FEW)


def _kept(objective: Objective, views: Mapping[int, Tensor]) -> int:
    """Return the bytes that autograd keeps of a forward in addition to the network's own and the views."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (*_tensors(objective.net), *views.values())}
    # Kept alive, because the address of a freed storage may come again.
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        # Itself it would hold the graph that holds it.
        return tensor.detach()

    # One autocast around all views casts each weight once, as in a step.
    cast_once = autocast(objective.net.alpha.device, objective.amp)
    with torch.enable_grad(), cast_once, saved_tensors_hooks(pack, lambda tensor: tensor):
        for place, view in views.items():
            objective.logits(place, view)
    return sum(storage.nbytes() for storage in kept.values())


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
