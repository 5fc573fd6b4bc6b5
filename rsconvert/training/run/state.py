"""What a run must keep to go on to the bit, as tensors by name: network, average, optimizer, random generators.

    net.KEY  average.KEY  optimizer.GROUP.PLACE.KEY  random.RANK.DEVICE  buffers.RANK.net.KEY  buffers.RANK.average.KEY

Processes share weights, but each has generators and, within an epoch, BatchNorm statistics of its own.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rsconvert.checkpoint import fill
from rsconvert.errors import CheckpointError
from rsconvert.evaluation import Processes
from rsconvert.training.step import generator_states, set_generators

__all__ = ["collect_state", "restore_state"]


def collect_state(
    net: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer, processes: Processes
) -> dict[str, Tensor]:
    """Return copies of all tensors of a run to the leading process; every process must ask."""
    own = {f"random.{processes.rank}.{name}": state for name, state in generator_states(processes.device).items()}
    if not processes.leads:
        for name, model in _models(net, average).items():
            own |= {f"buffers.{processes.rank}.{name}.{key}": value.cpu() for key, value in model.named_buffers()}
    gathered = processes.gather(own)
    if not processes.leads:
        return {}
    tensors = {name: value for part in gathered for name, value in part.items()}
    for name, model in _models(net, average).items():
        tensors |= {f"{name}.{key}": value.detach().cpu().clone() for key, value in model.state_dict().items()}
    for group, place, parameter in _places(optimizer):
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{group}.{place}.{key}"] = value.detach().cpu().clone()
    return tensors


def restore_state(
    tensors: Mapping[str, Tensor],
    net: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    processes: Processes,
) -> None:
    """Put the tensors of a state back where they came from; a momentum takes its weight's layout in memory.

    Raises:
        CheckpointError: the state is of another network or optimizer, or of fewer processes.
    """
    for name, model in _models(net, average).items():
        fill(model, _below(name, tensors), "the state")
        own = _below(f"buffers.{processes.rank}.{name}", tensors)
        with torch.no_grad():
            for key, buffer in model.named_buffers():
                buffer.copy_(own.get(key, buffer))
    held = _below("optimizer", tensors)
    for group, place, parameter in _places(optimizer):
        mine = _below(f"{group}.{place}", held)
        fused = bool(optimizer.param_groups[group].get("fused"))
        optimizer.state[parameter] = {key: _like(value, parameter, fused) for key, value in mine.items()}
    states = _below(f"random.{processes.rank}", tensors)
    if not states:
        raise CheckpointError("the state is of a run with fewer processes; as many are needed. Start as many.")
    set_generators(states, processes.device)


def _models(net: nn.Module, average: nn.Module | None) -> dict[str, nn.Module]:
    return {"net": net} | ({} if average is None else {"average": average})


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def _places(optimizer: torch.optim.Optimizer) -> list[tuple[int, int, nn.Parameter]]:
    groups = enumerate(optimizer.param_groups)
    return [(g, p, parameter) for g, group in groups for p, parameter in enumerate(group["params"])]


def _like(value: Tensor, parameter: Tensor, fused: bool) -> Tensor:
    """Return a state with its parameter's strides: a fused step on a CPU reads memory in order, whatever they are."""
    if value.shape != parameter.shape:  # a count of steps, which a fused step wants beside the parameter
        return value.to(parameter.device) if fused else value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
