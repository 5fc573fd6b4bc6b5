"""The state of a run: the tensors that it needs to resume bit for bit, and the settings and images that these fit.

    net.KEY  average.KEY  optimizer.GROUP.PLACE.KEY  random.RANK.DEVICE  buffers.RANK.net.KEY  buffers.RANK.average.KEY

Processes share weights, but each has generators and, within an epoch, BatchNorm statistics of its own.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from rsconvert.checkpoint import fill
from rsconvert.data import Samples
from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.text import printable
from rsconvert.training.step import Stepper, generator_states, set_generators

__all__ = ["FREE_SETTINGS", "check_facts", "check_same_run", "collect_state", "data_identity", "restore_state"]

# They change neither a number of the result nor what a state holds.
FREE_SETTINGS = {"workers", "save_minutes", "keep_states", "log_dir", "data_root", "skip_broken"}
# With others the tensors of a state have no place.
_FIXED = {"optimizer", "train", "labels", "layer_decay", "decay_all", "ema_decay", "resolutions", "processes"}
_FIXED |= {"bits", "activation_bases", "keep_float"}
_REMEDIES = {
    "starting_network": "Give the checkpoint that the run started from",
    "data": "Give the images that the run started with",
    "image_files": "Give the images that the run started with",
}


def collect_state(stepper: Stepper) -> dict[str, Tensor]:
    """Return copies of all tensors of a run to the leading process; every process must ask."""
    processes, models = stepper.processes, _models(stepper)
    own = {f"random.{processes.rank}.{name}": state for name, state in generator_states(processes.device).items()}
    if not processes.leads:
        for name, model in models.items():
            own |= {f"buffers.{processes.rank}.{name}.{key}": value.cpu() for key, value in model.named_buffers()}
    gathered = processes.gather(own)
    if not processes.leads:
        return {}
    tensors = {name: value for part in gathered for name, value in part.items()}
    for name, model in models.items():
        tensors |= {f"{name}.{key}": value.detach().cpu().clone() for key, value in model.state_dict().items()}
    for place, parameter in _places(stepper.optimizer).items():
        held = {key: value for key, value in stepper.optimizer.state[parameter].items() if isinstance(value, Tensor)}
        tensors |= {f"optimizer.{place}.{key}": value.detach().cpu().clone() for key, value in held.items()}
    return tensors


def restore_state(tensors: Mapping[str, Tensor], stepper: Stepper) -> None:
    """Put the tensors of a state back where they came from; a momentum takes its weight's layout in memory.

    Raises:
        CheckpointError: the state is of another network or optimizer, or of fewer processes.
    """
    processes, optimizer = stepper.processes, stepper.optimizer
    for name, model in _models(stepper).items():
        fill(model, _below(name, tensors), "the state")
        own = _below(f"buffers.{processes.rank}.{name}", tensors)
        with torch.no_grad():
            for key, buffer in model.named_buffers():
                buffer.copy_(own.get(key, buffer))
    for place, parameter in _places(optimizer).items():
        fused = bool(optimizer.param_groups[int(place.split(".")[0])].get("fused"))
        held = _below(f"optimizer.{place}", tensors)
        optimizer.state[parameter] = {key: _like(value, parameter, fused) for key, value in held.items()}
    states = _below(f"random.{processes.rank}", tensors)
    if not states:
        raise CheckpointError("the state is of a run with fewer processes; as many are needed.")
    set_generators(states, processes.device)


def _models(stepper: Stepper) -> dict[str, SwitchableModel]:
    return {"net": stepper.net} | ({} if stepper.averaged is None else {"average": stepper.averaged})


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def _places(optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    groups = enumerate(optimizer.param_groups)
    return {f"{g}.{p}": parameter for g, group in groups for p, parameter in enumerate(group["params"])}


def _like(value: Tensor, parameter: Tensor, fused: bool) -> Tensor:
    """Return a state with its parameter's strides: a fused step on a CPU reads memory in order, whatever they are."""
    if value.shape != parameter.shape:  # a count of steps, which a fused step needs on the parameter's device
        return value.to(parameter.device) if fused else value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def data_identity(
    net: SwitchableModel, samples: tuple[Samples, Samples], outputs: Sequence[int] | None
) -> dict[str, Any]:
    """Return what is to be the same of the images: number, classes, names, sizes, preprocessing."""
    train, val = samples
    named = json.dumps([train.classes, outputs])
    short = hashlib.blake2b(named.encode(), digest_size=4).hexdigest()
    images = "-".join(samples.fingerprint() for samples in (train, val))
    words = f"{len(train)} train and {len(val)} val images, {len(train.classes or ())} classes ({short})"
    return {"data": words, "image_files": images, **asdict(net.source.preprocessing)}


def check_facts(facts: Any) -> None:
    """Raise a CheckpointError unless a state's facts have the types of those that a run writes."""
    kinds = {"progress": dict, "settings": dict, "scaler": dict}
    known = type(facts) is dict and all(type(facts.get(name)) is kind for name, kind in kinds.items())
    if known and type(facts["settings"].get("steps_per_epoch")) is int:
        return
    raise CheckpointError("the state lacks facts of its run; one that finetune wrote is needed. Start anew by --force.")


def check_same_run(saved: Mapping[str, Any], config: FinetuneConfig, facts: Mapping[str, Any], *, force: bool) -> None:
    """Compare the settings and facts of a state with those of the run that is to resume from it.

    Raises:
        ConfigError: some differ and ``force`` is not set, or some differ for which the state has no place.
    """
    now = {**asdict(config), **facts}
    free = FREE_SETTINGS | (set() if "image_files" in saved else {"image_files"})  # of a state from before it was kept
    differing = [name for name in now if name not in free and _plain(saved.get(name)) != _plain(now[name])]
    changes = ", ".join(f"{name} was {_short(saved.get(name))} and is {_short(now[name])}" for name in differing)
    if fixed := [name for name in differing if name in _FIXED]:
        raise ConfigError(
            f"the run to resume differs: {changes}; its state fits the same {', '.join(fixed)} alone. "
            "Give the same again, or start another run."
        )
    if differing and not force:
        remedy = next((text for name, text in _REMEDIES.items() if name in differing), "Give them again")
        raise ConfigError(
            f"the run to resume differs: {changes}; the same are needed for the same result. "
            f"{remedy}, or resume all the same by --force."
        )


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    text = printable(str(value))
    return text if len(text) <= 60 else f"{text[:57]}…"
