"""The processes of one run: those that torchrun or Slurm started, joined for sums and meetings."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rsconvert.errors import ConfigError, RSConvertError, TrainingError, first_line
from rsconvert.evaluation.device import choose_device

__all__ = [
    "Meeting",
    "Processes",
    "joined_processes",
    "launched_processes",
    "launched_rank",
    "running_processes",
    "shared_failure",
]

Meeting = Callable[..., list[Any]]
"""Takes a value, or none, and returns those of all processes in the order of ranks."""

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """This process among all of the run; alone, its sums are its own values."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, on the tensor's device; all must ask at the same time."""
        if self.world_size == 1:
            return tensor
        here = tensor.to(self.device, copy=True)
        dist.all_reduce(here)
        return here.to(tensor.device)

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in the order of ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


def launched_rank() -> int:
    """Return the rank that a launcher gave this process; 0 without one."""
    return _number("RANK", 0)


def launched_processes() -> int:
    """Return the number of processes that a launcher started; 1 without one."""
    return _number("WORLD_SIZE", 1)


@contextmanager
def joined_processes(device: str | None) -> Iterator[Processes]:
    """Join the processes that a launcher such as torchrun started: over NCCL on GPUs, over gloo on CPUs.

    A process group that exists already is used as it is. ``cuda`` is the process's own GPU, by LOCAL_RANK.

    Raises:
        ConfigError: there is no such device here, or the launcher's variables are incomplete.
        TrainingError: another process of the run ended or can't be reached.
    """
    if _initialized() or launched_processes() == 1:
        with running_processes(device) as processes:
            yield processes
        return
    if missing := [name for name in _VARIABLES if name not in os.environ]:
        raise ConfigError(
            f"WORLD_SIZE asks for several processes, but {', '.join(missing)} is not set; a launcher sets them all. "
            "Start by torchrun."
        )
    with _plain_peer_errors():
        dist.init_process_group("nccl" if _own_device(device).type == "cuda" else "gloo")
        try:
            with running_processes(device) as processes:
                yield processes
        finally:
            dist.destroy_process_group()


@contextmanager
def running_processes(device: str | None) -> Iterator[Processes]:
    """Yield the processes of the group that the caller has joined, or this one alone; errors as `joined_processes`."""
    if not _initialized():
        yield Processes(0, 1, choose_device(device))
        return
    with _plain_peer_errors():
        yield Processes(dist.get_rank(), dist.get_world_size(), _own_device(device))


class _PeerError(TrainingError):
    """Another process reported that it failed."""


@contextmanager
def shared_failure(processes: Processes) -> Iterator[Meeting]:
    """Yield a meeting that all processes hold equally often; at their next one they hear of one that failed.

    Without it they would wait there until the time of the group is over.

    Raises:
        TrainingError: in a meeting: another process failed.
    """

    def meet(value: Any = None) -> list[Any]:
        brought = processes.gather((False, value))
        if failed := [rank for rank, (failure, _) in enumerate(brought) if failure]:
            raise _PeerError(
                f"process {failed[0]} of {processes.world_size} failed; all of them must come to the end. "
                "See what it printed."
            )
        return [value for _, value in brought]

    try:
        yield meet
        meet()  # so that one that fails on its last steps is heard too
    except _PeerError:
        raise
    except BaseException as error:
        if not _is_peer_error(error):  # with a lost process nobody can meet
            with suppress(RuntimeError, ConnectionError):
                processes.gather((True, None))
        raise


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdigit():
        raise ConfigError(f"{variable} is {text!r}; a launcher sets a whole number. Unset it, or start by torchrun.")
    return int(text)


def _own_device(name: str | None) -> torch.device:
    """Return the device, of several GPUs that of this process, and make it the current one."""
    device = choose_device(name)
    if device.type == "cuda":
        if name in (None, "cuda"):
            device = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(device)
    return device


@contextmanager
def _plain_peer_errors() -> Iterator[None]:
    """Turn the loss of another process into a TrainingError of one line."""
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        if not _is_peer_error(error) or isinstance(error, BrokenPipeError):
            raise
        reason = (first_line(error) or type(error).__name__)[:120]
        raise TrainingError(
            f"another process of the run ended or can't be reached ({reason}); all of them are needed. "
            "See what it printed; finetune continues with --resume."
        ) from error


def _is_peer_error(error: BaseException) -> bool:
    if isinstance(error, RSConvertError):
        return False
    signs = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")
    return isinstance(error, (dist.DistError, ConnectionError)) or any(sign in str(error).lower() for sign in signs)
