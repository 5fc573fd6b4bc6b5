"""Defaults that follow from the network: gentle where training could spoil what it knows."""

from rsconvert.errors import RSConvertError
from rsconvert.quantization import layout_of
from rsconvert.settings import FILLED, FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.text import plain
from rsconvert.training.linear_probe import classifier_name

__all__ = ["explain_defaults", "fill_defaults"]


def fill_defaults(
    net: SwitchableModel, config: FinetuneConfig, *, views: int | None = None, processes: int = 1
) -> FinetuneConfig:
    """Return the settings in force for a network as training starts, see ``FinetuneConfig.filled``.

    Args:
        views: S of the summed loss; None takes those of a step.
        processes: how many train together, for the rate that follows from the images per step.
    """
    if all(getattr(config, name) is not None for name in FILLED):
        return config
    gentle, probe, _ = _choice(net, config)
    drawn = config.drawn_views(len(net.resolutions)) if views is None else views
    return config.filled(gentle=gentle, probe=probe, views=drawn, processes=processes)


def explain_defaults(net: SwitchableModel, config: FinetuneConfig) -> str | None:
    """Return in a line what the open settings become as training starts, and why; None if there are none."""
    gentle, _, reason = _choice(net, config)
    filled = fill_defaults(net, config)
    values = [f"{name}={plain(getattr(filled, name))}" for name in FILLED if getattr(config, name) is None]
    return f"{'gentle' if gentle else 'usual'} defaults, since {reason}: {'  '.join(values)}" if values else None


def _choice(net: SwitchableModel, config: FinetuneConfig) -> tuple[bool, bool, str]:
    """Return whether the defaults are gentle, whether the classifier is fitted first, and why."""
    source = net.source
    if config.bits is not None or layout_of(net):
        return False, False, "its convolutions get few bits"
    if config.train != "all":
        return False, False, f"train is {config.train}"
    if source.weights is None and source.training is None:
        return False, False, "no trained weights are known"
    probe = source.training is None and config.labels == "data" and _fits(net)
    if not source.new_classifier:
        return True, probe, "the network was trained and keeps its classifier"
    if config.probe_epochs or (probe and config.probe_epochs is None):
        return True, probe, "the network was trained, and its new classifier is fitted first"
    return False, False, "the classifier is new"


def _fits(net: SwitchableModel) -> bool:
    try:
        return bool(classifier_name(net))
    except RSConvertError:
        return False
