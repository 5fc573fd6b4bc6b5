"""What learns in a network, by the setting ``train``."""

from torch import nn

from rsconvert.errors import ConfigError
from rsconvert.models import classifier_keys
from rsconvert.surgery import SwitchableModel

__all__ = ["learning_parameters"]


def learning_parameters(net: SwitchableModel, part: str, *, alpha: bool = True) -> set[nn.Parameter]:
    """Return the parameters that learn when ``all`` do, the smaller ``bn`` sets, or the ``head``; and alpha.

    Raises:
        ConfigError: ``part`` is ``bn`` for a network without a second private set, or with a new classifier; ``head``
            for one without a classifier.
    """
    parts = {"all": lambda: list(net.parameters()), "bn": lambda: _smaller_sets(net), "head": lambda: _head(net)}
    learning = {*parts[part](), net.alpha} - (set() if alpha else {net.alpha})
    if not learning:
        raise ConfigError(
            f"train is {part} and alpha rests, but the network has no such parameters; something must learn. Change it."
        )
    return learning


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
