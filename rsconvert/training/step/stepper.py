"""Stepper: what a batch changes: objective, optimizer, schedule and moving average of one run."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from rsconvert.checkpoint import digest
from rsconvert.errors import ConfigError, TrainingError
from rsconvert.evaluation import Processes
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.loss import MREDLoss
from rsconvert.training.step.defaults import fill_defaults
from rsconvert.training.step.float_weights import FloatWeights, drop_float_weights, quantize_for, requantize
from rsconvert.training.step.gradients import backward, backward_by_view, kept_buffers
from rsconvert.training.step.mixture import Mixture
from rsconvert.training.step.objective import Objective, drawn_places
from rsconvert.training.step.optimizer import create_optimizer, create_schedule
from rsconvert.training.step.teacher import create_teacher

__all__ = ["Stepper"]

# Older torch knows another name for it. Statistics differ between processes within an epoch.
_KNOWN = inspect.signature(DistributedDataParallel.__init__).parameters
_OWN_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _KNOWN else "broadcast_buffers": False
}


class Stepper:
    """Adds the gradients of batches, and steps when ``grad_accum_steps`` of them are there.

    Args:
        batches: of an epoch.
        amp: the precision of autocast, as of ``choose_precision``.
        outputs: as of `Objective`.
    Raises:
        ConfigError, DataError: the settings do not fit the network, or have no effect on it.
    """

    def __init__(
        self,
        net: SwitchableModel,
        config: FinetuneConfig,
        batches: int,
        amp: torch.dtype,
        processes: Processes,
        outputs: Sequence[int] | None = None,
    ) -> None:
        config = fill_defaults(net, config, processes=processes.world_size)
        self.net, self.config, self.processes = net, config, processes
        self.steps_per_epoch = batches // config.grad_accum_steps
        if not self.steps_per_epoch:
            raise ConfigError(
                f"grad_accum_steps is {config.grad_accum_steps}, more than the {batches} batches of an epoch. Lower "
                "it, or batch_size."
            )
        teacher = create_teacher(net, config, processes.device)
        self.taught_by = None if teacher is None else digest(teacher.model.state_dict())
        self.quantized = quantize_for(net, config)
        self.objective = Objective(net, config, amp, teacher, outputs=outputs, sync_bn=_synced(config, processes))
        self.float_weights = FloatWeights(net, self._mean if processes.world_size > 1 else None)
        self.forward: Any = self.objective
        if processes.world_size > 1 and not config.low_memory:
            draws = config.drawn_views(len(net.resolutions)) < len(net.resolutions)
            self.forward = DistributedDataParallel(self.objective, find_unused_parameters=draws, **_OWN_BUFFERS)
        self.optimizer = create_optimizer(net, config, processes=processes.world_size)
        self.schedule = create_schedule(self.optimizer, config, self.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=amp is torch.float16)
        self.average = None if config.ema_decay is None else ModelEmaV3(net, config.ema_decay, use_warmup=True)
        self.mixture = Mixture(net, config.start_share) if config.start_share else None

    @property
    def averaged(self) -> SwitchableModel | None:
        """The moving average, if there is one."""
        return None if self.average is None else cast(SwitchableModel, self.average.module)

    @property
    def judged(self) -> SwitchableModel:
        """The network that is evaluated and saved: the mixture as of the last ``mix``, the average, or the trained."""
        return self.mixture.net if self.mixture is not None else self.averaged or self.net

    def mix(self) -> None:
        """Mix what was trained, or its moving average, with the start, if asked."""
        if self.mixture is not None:
            self.mixture.update(self.averaged or self.net)

    def add(self, views: Sequence[Tensor], target: Tensor, *, last: bool) -> Tensor:
        """Add the gradients of a batch; return this process's parts of the loss, (4,), float64.

        Args:
            last: whether a step follows, for which the processes average their gradients.
        """

        def scale(total: Tensor) -> Tensor:
            return self.scaler.scale(total / self.config.grad_accum_steps)

        if self.config.low_memory:
            loss = backward_by_view(self.objective, views, target, scale)
            if last and self.processes.world_size > 1:
                self._average_gradients()
        else:
            apart = isinstance(self.forward, DistributedDataParallel) and not last
            with self.forward.no_sync() if apart else nullcontext(), _plain_reduction_errors():
                loss = backward(self.forward, self.objective, views, target, scale)
        return torch.stack([part.detach() for part in loss]).double()

    def step(self, steps_done: int) -> None:
        """Step along the gradients and forget them."""
        self.schedule.step_update(steps_done)
        if self.config.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.clip_grad)
        with self.float_weights.stepping():
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.net, step=steps_done + 1)
            requantize(self.average.module)

    def close(self) -> None:
        """Leave in the network what a file of it holds."""
        drop_float_weights(self.net)

    @torch.no_grad()
    def diagnose(self, views: Sequence[Tensor], target: Tensor) -> tuple[list[str], int | None]:
        """Return the parts of a batch's loss that are not finite, and the first resolution whose logits are not.

        They are computed again, so that no step pays for it.
        """
        with kept_buffers(self.net):
            logits = {place: self.objective.logits(place, views[place]) for place in drawn_places(views)}
            loss = self.objective.loss(list(logits.values()), views, target)
        parts = [n for n, part in zip(MREDLoss._fields[1:], loss[1:], strict=True) if not part.isfinite()]
        broken = (self.net.resolutions[place] for place, z in logits.items() if not z[0].isfinite().all())
        return parts, next(broken, None)

    @torch.no_grad()
    def average_statistics(self) -> None:
        """Give all processes the mean of their running statistics, but not of those that training leaves alone.

        The mean of equal numbers is not always that number.
        """
        if self.processes.world_size == 1:
            return
        moved = {id(buffer) for buffer in self.objective.moved_statistics()}
        names = [name for name, buffer in self.net.named_buffers() if id(buffer) in moved]
        for model in dict.fromkeys((self.net, self.averaged or self.net)):
            for name in names:
                buffer = model.get_buffer(name)
                buffer.copy_(self._mean(buffer))

    def _mean(self, tensor: Tensor) -> Tensor:
        return self.processes.total(tensor) / self.processes.world_size

    def _average_gradients(self) -> None:
        gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.processes.world_size
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def _synced(config: FinetuneConfig, processes: Processes) -> bool:
    if config.sync_bn and (processes.world_size == 1 or processes.device.type == "cpu"):
        raise ConfigError(
            f"sync_bn is on with {processes.world_size} process(es) on {processes.device.type}; it has an effect on "
            "several processes and works on GPUs. Leave it out."
        )
    return config.sync_bn


@contextmanager
def _plain_reduction_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "Expected to have finished reduction" not in str(error):
            raise
        raise TrainingError(
            "some parameters have no part in the loss, such as those of an unused head; DistributedDataParallel needs "
            "all that learn. Set low_memory, which averages without it, or remove them from the model."
        ) from error
