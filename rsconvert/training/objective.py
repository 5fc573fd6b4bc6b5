"""Objective: network and loss as one module, the unit that is stepped and, one day, distributed."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rsconvert.errors import ConfigError, DataError, RSConvertError, TrainingError
from rsconvert.evaluation import is_memory_error
from rsconvert.surgery import SwitchableModel
from rsconvert.training.config import FinetuneConfig
from rsconvert.training.mred import MREDLoss, mred_loss
from rsconvert.zoo import classifier_keys

__all__ = ["Objective"]


class Objective(nn.Module):
    """Map (S views, targets) to the parts of the loss, by the settings of a configuration.

    Freezes at construction what ``config.train`` leaves out; alpha always learns.

    Raises:
        ConfigError: ``train`` is ``bn`` for a network without a second private set, or with a new classifier; ``head``
            for one without a classifier.
        DataError: the class weights are not one per output.
    """

    class_weights: Tensor | None

    def __init__(self, net: SwitchableModel, config: FinetuneConfig, amp: torch.dtype | None = None) -> None:
        super().__init__()
        self.net, self.config, self.amp = net, config, amp
        _check_class_weights(net, config)
        weights = None if config.class_weights is None else torch.tensor(config.class_weights, device=net.alpha.device)
        self.register_buffer("class_weights", weights, persistent=False)
        trained = _trained(net, config.train)
        for parameter in net.parameters():
            parameter.requires_grad_(parameter in trained)

    def train(self, mode: bool = True) -> "Objective":
        """Set the mode of the paths that learn; a frozen BN set keeps its statistics and stays in eval mode."""
        super().train(mode and self.config.train != "head")
        if self.config.train == "bn":
            self.net.at(self.net.native).eval()
        return self

    def forward(self, views: Sequence[Tensor], target: Tensor) -> MREDLoss:
        """Return the loss of S normalized views, each (N, C, H, W), and targets (N,).

        Raises:
            TrainingError: the network fails, or returns something other than one tensor of logits.
            DataError: a target is beyond the network's outputs.
        """
        with torch.autocast(views[0].device.type, self.amp, enabled=self.amp is not None):
            logits = [self._logits(r, view) for r, view in zip(self.net.resolutions, views, strict=True)]
        _check_output(logits[0])
        _check_targets(target, logits[0].shape[1])
        config = self.config
        return mred_loss(
            logits,
            target,
            self.net.alpha,
            config.distill,
            label_smoothing=config.label_smoothing,
            class_weights=self.class_weights,
        )

    def _logits(self, resolution: int, view: Tensor) -> Tensor:
        try:
            logits: Tensor = self.net.at(resolution)(view)
        except Exception as error:  # whatever the network's own code raises
            if isinstance(error, RSConvertError) or is_memory_error(error):
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise TrainingError(
                f"resolution {resolution} does not train with views of shape {tuple(view.shape)} ({reason}); BatchNorm "
                "needs more than one value per channel. Raise batch_size, or choose larger resolutions."
            ) from error
        return logits


def _trained(net: SwitchableModel, part: str) -> set[nn.Parameter]:
    """Return the parameters that learn."""
    if part == "head":
        return {net.alpha, *_head(net)}
    return {net.alpha, *_smaller_sets(net)} if part == "bn" else set(net.parameters())


def _head(net: SwitchableModel) -> list[nn.Parameter]:
    keys = set(classifier_keys(net.at(net.native)))
    if not keys:
        raise ConfigError("train is head, but the network has no classifier; all or bn is accepted. Change it.")
    return [parameter for name, parameter in net.named_parameters() if name in keys]


def _smaller_sets(net: SwitchableModel) -> list[nn.Parameter]:
    if net.source.new_classifier:
        raise ConfigError(
            "train is bn, but the classifier is new and would stay untrained; all or head is accepted. Train it first."
        )
    sets = [bn for _, switchable in net.switchable_bns() for bn in switchable.sets[1:]]
    if not sets:
        raise ConfigError(
            "train is bn, but the network has no BN set beside the native one; all or head is accepted. "
            "Add resolutions with private BatchNorms, or change it."
        )
    return [parameter for bn in sets for parameter in bn.parameters()]


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


def _check_targets(target: Tensor, outputs: int) -> None:
    # On a GPU the loss would meet such a target with an assertion that ends the process's use of the device.
    if not target.is_floating_point() and target.numel() and int(target.max()) >= outputs:
        raise DataError(
            f"a target is {int(target.max())}; the network has {outputs} outputs, so 0 to {outputs - 1} is accepted. "
            "Correct the labels, or give the network an output per class."
        )
