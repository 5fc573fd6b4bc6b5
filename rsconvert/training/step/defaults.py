"""Defaults that follow from the network: gentle where training could spoil what it knows."""

from rsconvert.settings import FILLED, FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.text import plain

__all__ = ["explain_defaults", "fill_defaults"]


def fill_defaults(
    net: SwitchableModel, config: FinetuneConfig, *, views: int | None = None, processes: int = 1
) -> FinetuneConfig:
    """Return the settings in force for a network as training starts, see ``FinetuneConfig.filled``.

    Args:
        views: S of the summed loss; None takes those of a step.
        processes: how many train together, for the rate that follows from the images per step.
    """
    gentle, _ = _how_gentle(net, config)
    drawn = config.drawn_views(len(net.resolutions)) if views is None else views
    return config.filled(gentle=gentle, views=drawn, processes=processes)


def explain_defaults(net: SwitchableModel, config: FinetuneConfig) -> str | None:
    """Return in a line what the open settings become as training starts, and why; None if there are none."""
    gentle, reason = _how_gentle(net, config)
    filled = fill_defaults(net, config)
    values = [f"{name} {plain(getattr(filled, name))}" for name in FILLED if getattr(config, name) is None]
    return f"{'gentle' if gentle else 'usual'} defaults, since {reason}: {', '.join(values)}" if values else None


def _how_gentle(net: SwitchableModel, config: FinetuneConfig) -> tuple[bool, str]:
    """Return whether the defaults are the gentle ones, and why."""
    source = net.source
    if config.train != "all":
        return False, f"train is {config.train}"
    if source.new_classifier:
        return False, "the classifier is new"
    if source.weights is None and source.training is None:
        return False, "no trained weights are known"
    return True, "the network was trained and keeps its classifier"
