"""Objective: network and loss as one module, the unit that is stepped and, one day, distributed."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from rsconvert.errors import ConfigError, DataError, TrainingError
from rsconvert.surgery import SwitchableModel, classifier_keys
from rsconvert.training.config import FinetuneConfig
from rsconvert.training.mred import MREDLoss, mred_loss

__all__ = ["Objective"]


class Objective(nn.Module):
    """Map (S views, targets) to the parts of the loss, by the settings of a configuration.

    Freezes at construction what ``config.train`` leaves out; alpha always learns.

    Raises:
        ConfigError: ``train`` is ``bn`` for a network without a second private set, or with a new classifier; ``head`` for
            one without a classifier.
        DataError: the class weights are not one per output.
    """

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
            TrainingError: the network returns something other than one tensor of logits.
        """
        with torch.autocast(views[0].device.type, self.amp) if self.amp else nullcontext():
            logits = self.net(views=views)
        if not isinstance(logits[0], Tensor):
            raise TrainingError(
                f"the network returns a {type(logits[0]).__name__} in train mode; one tensor of logits is needed. "
                "Switch auxiliary outputs off by model_kwargs, or wrap the model."
            )
        config = self.config
        return mred_loss(
            logits, target, self.net.alpha, config.distill, label_smoothing=config.label_smoothing, class_weights=self.class_weights
        )


def _trained(net: SwitchableModel, part: str) -> set[nn.Parameter]:
    if part == "all":
        return set(net.parameters())
    if part == "head":
        head = set(classifier_keys(net.at(net.native)))
        if not head:
            raise ConfigError("train is head, but the network has no classifier; all or bn is accepted. Change it.")
        return {net.alpha, *(p for name, p in net.named_parameters() if name in head)}
    if net.source.new_classifier:
        raise ConfigError("train is bn, but the classifier is new and would stay untrained; all or head is accepted. Train it first.")
    sets = {p for _, bn in net.switchable_bns() for other in bn.sets[1:] for p in other.parameters()}
    if not sets and not any(bn.sets[1:] for _, bn in net.switchable_bns()):
        raise ConfigError("train is bn, but only the native BN set exists; all or head is accepted. Add resolutions, or change it.")
    return {net.alpha, *sets}


def _check_class_weights(net: SwitchableModel, config: FinetuneConfig) -> None:
    outputs = net.source.num_classes
    if config.class_weights is not None and outputs not in (None, len(config.class_weights)):
        raise DataError(f"class_weights has {len(config.class_weights)} numbers; {outputs} are needed, one per class. Correct it.")
