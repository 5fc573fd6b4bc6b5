"""Objective: network and loss as one module, the unit that is stepped and distributed."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import cast

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rsconvert.errors import ConfigError, DataError, RSConvertError, TrainingError, first_line
from rsconvert.evaluation import autocast, check_labels, is_memory_error
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel, batchnorms, copy_structure, eval_mode
from rsconvert.training.dense_loss import dense_mred_loss, split_masks
from rsconvert.training.loss import MREDLoss, mred_loss
from rsconvert.training.step.defaults import fill_defaults
from rsconvert.training.step.grids import loss_grids
from rsconvert.training.step.optimizer import learning_parameters

__all__ = ["Logits", "Objective", "drawn_places"]

Logits = list[Tensor]
"""Of one view: the network's own, then those of its auxiliary outputs."""


class Objective(nn.Module):
    """Map (S views, targets) to the parts of the loss, by the settings of a configuration.

    Freezes at construction what ``config.train`` leaves out; alpha learns unless there are no labels. Switches on the
    model's own activation checkpointing if ``config`` asks for it.

    Args:
        amp: the precision of autocast, as of ``choose_precision``.
        teacher: from the native view to logits that stand for p_0; needed with ``labels`` none, unless the native path
            is frozen and so teaches itself.
        outputs: the network's output for each class of the data; the loss compares these alone. None takes all.
        sync_bn: take BatchNorm's statistics over all processes.
    Raises:
        ConfigError: ``train`` does not fit the network, see `learning_parameters`; it has no checkpointing.
        DataError: the class weights are not one per output.
    """

    class_weights: Tensor | None
    outputs: Tensor | None
    _paths: list[nn.Module]
    _runs: list[Callable[[Tensor], object]]

    def __init__(
        self,
        net: SwitchableModel,
        config: FinetuneConfig,
        amp: torch.dtype = torch.float32,
        teacher: Callable[[Tensor], Tensor] | None = None,
        *,
        outputs: Sequence[int] | None = None,
        sync_bn: bool = False,
    ) -> None:
        super().__init__()
        self.net, self.config, self.amp, self.teacher = net, fill_defaults(net, config), amp, teacher
        self.task, self.grids = net.source.task, loss_grids(net, config)
        if config.grad_checkpointing:
            _set_checkpointing(net)
        kept = None if outputs is None else torch.tensor(outputs, device=net.alpha.device)
        self.register_buffer("outputs", kept, persistent=False)
        self.register_buffer("class_weights", _class_weights(net, config, kept), persistent=False)
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
        if self.config.bn_statistics == "frozen":
            self._freeze_statistics()
        if self.config.train == "bn":
            self._freeze_shared_buffers()
        return self

    def moved_statistics(self) -> list[Tensor]:
        """Return the running means and variances that a forward in train mode moves."""
        modules = (module for path in self._paths for module in nn.Module.modules(path))
        training = (bn for bn in modules if isinstance(bn, _BatchNorm) and bn.training)
        return [buffer for bn in training for buffer in (bn.running_mean, bn.running_var) if buffer is not None]

    def forward(self, views: Sequence[Tensor], target: Tensor) -> MREDLoss:
        """Return the loss of S normalized views, each (N, C, H, W), and targets, (N,) or probabilities (N, classes).

        Classes are those of the data, so the places of ``outputs``, if there are such.

        Views without elements are not drawn: their paths do not run, and S is the number of the others in all of the
        loss, the factor of Eq. 10 included; the ensemble is theirs, by the softmax over their scores.

        Raises:
            TrainingError: the network fails, or returns something other than one tensor of logits.
            DataError: a target is beyond the network's outputs.
        """
        with autocast(views[0].device, self.amp):
            logits = [self._run(place, views[place]) for place in drawn_places(views)]
        return self.loss(logits, views, target)

    def logits(self, place: int, view: Tensor) -> Logits:
        """Return the logits of one of the S views, by its place from the largest to the smallest resolution.

        Those of auxiliary outputs follow the network's own.
        """
        with autocast(view.device, self.amp):
            return self._run(place, view)

    def loss(self, outputs: Sequence[Logits], views: Sequence[Tensor], target: Tensor) -> MREDLoss:
        """Return the loss of one batch, from what ``logits`` gives for the views that are drawn."""
        logits = [own[0] for own in outputs]
        config, unlabelled = self.config, self.config.labels == "none"
        if not (unlabelled or target.is_floating_point()):
            check_labels(self._known(target), logits[0].shape[1])
        teacher = logits[0].detach() if unlabelled else None
        if self.teacher is not None:
            with autocast(views[0].device, self.amp):
                teacher = self._compared(self.teacher(views[0]))
        places = drawn_places(views)
        alpha = torch.stack([self.net.alpha[place] for place in places])
        loss = self._mred(logits, None if unlabelled else target, alpha, config.distill, teacher, places)
        return loss if unlabelled else self._with_auxiliary(loss, outputs, target, places)

    def _known(self, target: Tensor) -> Tensor:
        return target[target != self.task.ignore_index] if self.task.dense else target

    def _mred(
        self,
        logits: Sequence[Tensor],
        target: Tensor | None,
        alpha: Tensor,
        distill: str,
        teacher: Tensor | None,
        places: Sequence[int],
    ) -> MREDLoss:
        config = self.config
        loss: Callable[..., MREDLoss] = partial(
            dense_mred_loss if self.task.dense else mred_loss,
            alpha=alpha,
            mode=distill,
            teacher=teacher,
            native_weight=config.native_weight or 1.0 if len(logits) > 1 else 1.0,
            label_smoothing=config.label_smoothing,
            class_weights=self.class_weights,
        )
        if not self.task.dense:
            return loss(logits, target)
        assert target is not None
        masks = split_masks(target.long(), self.grids)
        own = masks if len(masks) == 1 else [masks[place] for place in places]
        return loss(logits, own, ignore_index=self.task.ignore_index)

    def _with_auxiliary(
        self, loss: MREDLoss, outputs: Sequence[Logits], target: Tensor, places: Sequence[int]
    ) -> MREDLoss:
        """Add the cross entropies of the auxiliary outputs, each with its weight, to those of the classification."""
        extra = torch.zeros_like(loss.total)
        for i, weight in enumerate((w for w in self.task.auxiliary.values() if w), start=1):
            held = [n for n, own in enumerate(outputs) if len(own) > i]  # a path in eval mode may give none
            if held:
                alpha = torch.zeros(len(held), device=target.device)
                logits, sides = [outputs[n][i] for n in held], [places[n] for n in held]
                extra = extra + weight * self._mred(logits, target, alpha, "none", None, sides).classification
        return loss._replace(total=loss.total + extra, classification=loss.classification + extra)

    def _freeze_statistics(self) -> None:
        """Normalize by the running statistics, which stay; γ and β learn."""
        for path in self._paths:
            for name in batchnorms(path):
                path.get_submodule(name).eval()

    def _freeze_shared_buffers(self) -> None:
        """Hold what moves a buffer of the native path too, such as spectral_norm's vectors."""
        shared = {id(buffer) for buffer in self._paths[0].buffers()}
        for path in self._paths[1:]:
            for module in nn.Module.modules(path):
                if any(id(buffer) in shared for buffer in module.buffers(recurse=False)):
                    module.training = False

    def _compiled(self, path: nn.Module) -> Callable[[Tensor], object]:
        mode = self.config.compile
        run = path if mode == "off" else torch.compile(path, dynamic=False, mode=mode)
        return cast(Callable[[Tensor], object], run)

    def _run(self, place: int, view: Tensor) -> Logits:
        frozen = self.config.train == "bn" and place == 0
        try:
            with eval_mode([self._paths[0]]) if frozen else nullcontext():
                output: object = self._runs[place](view)
        except Exception as error:  # whatever the network's own code raises
            if isinstance(error, RSConvertError) or is_memory_error(error):
                raise
            raise TrainingError(self._failure(place, view, error)) from error
        if not isinstance(output, Tensor) and self.task.output is None:
            raise TrainingError(
                f"the network returns a {type(output).__name__} in train mode; one tensor of logits is needed. "
                "Switch auxiliary outputs off by model_kwargs, name the logits at the conversion, or wrap the model."
            )
        task = self.task
        return [self._compared(logits) for logits in (task.logits(output), *task.auxiliary_logits(output))]

    def _compared(self, logits: Tensor) -> Tensor:
        return logits if self.outputs is None else logits.index_select(1, self.outputs)

    def _failure(self, place: int, view: Tensor, error: Exception) -> str:
        reason, resolution = first_line(error) or type(error).__name__, self.net.resolutions[place]
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            return f"resolution {resolution} can't be compiled ({reason}); a compiler is needed. Set compile to off."
        few = "more than 1 value per channel" in reason
        needed = "BatchNorm needs more than one value per channel" if few else "a size that every layer takes is needed"
        return (
            f"resolution {resolution} does not train with views of shape {tuple(view.shape)} ({reason}); {needed}. "
            f"{'Raise batch_size, or choose' if few else 'Choose'} larger resolutions."
        )


def drawn_places(views: Sequence[Tensor]) -> list[int]:
    """Return the places of the views that have elements; the first one and the last one always do."""
    return [place for place, view in enumerate(views) if view.numel()]


def _class_weights(net: SwitchableModel, config: FinetuneConfig, kept: Tensor | None) -> Tensor | None:
    weights, outputs = config.class_weights, net.source.num_classes
    if weights is None:
        return None
    if outputs not in (None, len(weights)):
        raise DataError(f"class_weights has {len(weights)} numbers; {outputs} are needed, one per class.")
    every = torch.tensor(weights, device=net.alpha.device)
    return every if kept is None else every[kept]


def _set_checkpointing(net: SwitchableModel) -> None:
    try:
        net.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:
        raise ConfigError(
            f"grad_checkpointing is on, but {type(net.at(net.native)).__name__} has none; models of timm have it as a "
            "rule. Set it to false, or use low_memory."
        ) from error
