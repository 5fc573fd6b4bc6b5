"""Objective: network and loss as one module, the unit that is stepped and distributed."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import cast

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rsconvert.errors import DataError, RSConvertError, TrainingError
from rsconvert.evaluation import autocast, check_labels, is_memory_error
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel, copy_structure, eval_mode
from rsconvert.training.loss import MREDLoss, mred_loss
from rsconvert.training.step.learning import learning_parameters

__all__ = ["Objective"]


class Objective(nn.Module):
    """Map (S views, targets) to the parts of the loss, by the settings of a configuration.

    Freezes at construction what ``config.train`` leaves out; alpha learns unless there are no labels.

    Args:
        amp: the precision of autocast, as of ``choose_precision``.
        teacher: from the native view to logits that stand for p_0; needed with ``labels`` none, unless the native path
            is frozen and so teaches itself.
        sync_bn: take BatchNorm's statistics over all processes.
    Raises:
        ConfigError: ``train`` does not fit the network, see `learning_parameters`.
        DataError: the class weights are not one per output.
    """

    class_weights: Tensor | None
    _paths: list[nn.Module]
    _runs: list[Callable[[Tensor], Tensor]]

    def __init__(
        self,
        net: SwitchableModel,
        config: FinetuneConfig,
        amp: torch.dtype = torch.float32,
        teacher: Callable[[Tensor], Tensor] | None = None,
        *,
        sync_bn: bool = False,
    ) -> None:
        super().__init__()
        self.net, self.config, self.amp, self.teacher = net, config, amp, teacher
        _check_class_weights(net, config)
        weights = None if config.class_weights is None else torch.tensor(config.class_weights, device=net.alpha.device)
        self.register_buffer("class_weights", weights, persistent=False)
        learning = learning_parameters(net, config.train, alpha=config.labels == "data")
        for parameter in net.parameters():
            parameter.requires_grad_(parameter in learning)
        paths = [net.at(r) for r in net.resolutions]
        # A copy around the same tensors: the network's own paths keep their BatchNorms.
        self.__dict__["_paths"] = [convert_sync_batchnorm(copy_structure(path)) for path in paths] if sync_bn else paths
        # Outside the registry: these are other modules over the network's tensors.
        self.__dict__["_runs"] = [self._compiled(path) for path in self._paths]

    def train(self, mode: bool = True) -> "Objective":
        """Set the mode of the paths that learn; a frozen BN set keeps its statistics and stays in eval mode."""
        super().train(mode and self.config.train != "head")
        if self.config.train == "bn":
            self._paths[0].eval()
        # What paths share follows the others: `_run` sets it for the frozen one while that runs.
        for path in self._paths[1:] if self.config.train == "bn" else self._paths:
            path.train(self.training)
        if self.config.train == "bn":
            self._freeze_shared_buffers()
        return self

    def moved_statistics(self) -> list[Tensor]:
        """Return the running means and variances that a forward in train mode moves."""
        modules = (
            module for path in self._paths for module in nn.Module.modules(path) if isinstance(module, _BatchNorm)
        )
        found = [statistic for bn in modules if bn.training for statistic in (bn.running_mean, bn.running_var)]
        return [statistic for statistic in found if statistic is not None]

    def forward(self, views: Sequence[Tensor], target: Tensor) -> MREDLoss:
        """Return the loss of S normalized views, each (N, C, H, W), and targets, (N,) or probabilities (N, classes).

        Raises:
            TrainingError: the network fails, or returns something other than one tensor of logits.
            DataError: a target is beyond the network's outputs.
        """
        with self._autocast(views[0]):
            logits = [self._run(i, view) for i, view in enumerate(views)]
        return self.loss(logits, views[0], target)

    def logits(self, place: int, view: Tensor) -> Tensor:
        """Return the logits of one of the S views, by its place from the largest to the smallest resolution.

        Raises:
            TrainingError: as ``forward``.
        """
        with self._autocast(view):
            return self._run(place, view)

    def loss(self, logits: Sequence[Tensor], native_view: Tensor, target: Tensor) -> MREDLoss:
        """Return the loss of S logits (N, classes) of one batch.

        Raises:
            DataError: a target is beyond the network's outputs.
        """
        config, unlabelled = self.config, self.config.labels == "none"
        if not (unlabelled or target.is_floating_point()):
            check_labels(target, logits[0].shape[1])
        return mred_loss(
            logits,
            None if unlabelled else target,
            self.net.alpha,
            config.distill,
            teacher=self._taught(logits[0], native_view),
            label_smoothing=config.label_smoothing,
            class_weights=self.class_weights,
        )

    def _freeze_shared_buffers(self) -> None:
        """Hold what moves a buffer of the native path too, such as spectral_norm's vectors."""
        shared = {id(buffer) for buffer in self._paths[0].buffers()}
        for path in self._paths[1:]:
            for module in nn.Module.modules(path):
                if any(id(buffer) in shared for buffer in module.buffers(recurse=False)):
                    module.training = False

    def _taught(self, native: Tensor, view: Tensor) -> Tensor | None:
        if self.teacher is None:
            return native.detach() if self.config.labels == "none" else None
        with self._autocast(view):
            return self.teacher(view)

    def _autocast(self, view: Tensor) -> torch.autocast:
        return autocast(view.device, self.amp)

    def _compiled(self, path: nn.Module) -> Callable[[Tensor], Tensor]:
        mode = self.config.compile
        run = path if mode == "off" else torch.compile(path, dynamic=False, mode=mode)
        return cast(Callable[[Tensor], Tensor], run)

    def _run(self, place: int, view: Tensor) -> Tensor:
        frozen = self.config.train == "bn" and place == 0
        try:
            with eval_mode([self._paths[0]]) if frozen else nullcontext():
                logits = self._runs[place](view)
        except Exception as error:  # whatever the network's own code raises
            if isinstance(error, RSConvertError) or is_memory_error(error):
                raise
            raise TrainingError(self._told(place, view, error)) from error
        _check_output(logits)
        return logits

    def _told(self, place: int, view: Tensor, error: Exception) -> str:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        resolution = self.net.resolutions[place]
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            return f"resolution {resolution} can't be compiled ({reason}); a compiler is needed. Set compile to off."
        few = "more than 1 value per channel" in reason
        needed = "BatchNorm needs more than one value per channel" if few else "a size that every layer takes is needed"
        return (
            f"resolution {resolution} does not train with views of shape {tuple(view.shape)} ({reason}); {needed}. "
            f"{'Raise batch_size, or choose' if few else 'Choose'} larger resolutions."
        )


def _check_class_weights(net: SwitchableModel, config: FinetuneConfig) -> None:
    outputs = net.source.num_classes
    if config.class_weights is not None and outputs not in (None, len(config.class_weights)):
        raise DataError(
            f"class_weights has {len(config.class_weights)} numbers; {outputs} are needed, one per class. Correct it."
        )


def _check_output(output: object) -> None:
    if not isinstance(output, Tensor):
        raise TrainingError(
            f"the network returns a {type(output).__name__} in train mode; one tensor of logits is needed. "
            "Switch auxiliary outputs off by model_kwargs, or wrap the model."
        )
