"""Grids of the loss of segmentation, and which settings a network's task takes."""

from dataclasses import fields

import torch

from rsconvert.data import Grid
from rsconvert.errors import ConfigError
from rsconvert.evaluation import Masks, check_names_classes
from rsconvert.models import example_input
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel, eval_mode
from rsconvert.text import plain

__all__ = ["check_task", "loss_grids", "masks_of"]

_OF_MASKS = ("label_offset", "class_names", "resize", "loss_grid")
_OF_CLASSES = {"mixup": 0.0, "cutmix": 0.0, "rand_augment": None, "class_map": None, "labels": "data"}
_SHARED = ("crop", "flip")


def check_task(net: SwitchableModel, config: FinetuneConfig) -> None:
    """Refuse settings that have no effect on a network's task, or no meaning for it.

    Raises:
        ConfigError: there is one.
        UnsupportedModelError: the network gives one number for each position, where a class has one each.
    """
    defaults = {field.name: field.default for field in fields(FinetuneConfig)}
    if not net.source.task.dense:
        if given := [name for name in _OF_MASKS if getattr(config, name) != defaults[name]]:
            raise ConfigError(
                f"{given[0]} is {getattr(config, given[0])} and has no effect, because the network's task is "
                "classification. Leave it out."
            )
        return
    check_names_classes(net)
    wrong = [name for name, value in _OF_CLASSES.items() if getattr(config, name) != value]
    wrong += [name for name in _SHARED if getattr(config, name) == "per-view"]
    if wrong:
        accepted = {**_OF_CLASSES, **dict.fromkeys(_SHARED, "shared")}[wrong[0]]
        raise ConfigError(
            f"{wrong[0]} is {getattr(config, wrong[0])}, for which masks have no meaning; segmentation takes "
            f"{plain(accepted) if accepted else 'none'} alone. Leave it out."
        )
    if config.loss_grid == "native" and config.teacher is not None:
        raise ConfigError("teacher is set with loss_grid native; largest is accepted. Leave one out.")


def masks_of(config: FinetuneConfig) -> Masks:
    """Return how the settings read masks."""
    return Masks(label_offset=config.label_offset, class_names=config.class_names, resize=config.resize)


@torch.no_grad()
def loss_grids(net: SwitchableModel, config: FinetuneConfig) -> tuple[Grid, ...]:
    """Return the grids at which masks are needed: that of the largest view, or that of each view's logits; or none."""
    task, sizes = net.source.task, config.view_sizes or net.resolutions
    if not task.dense:
        return ()
    if config.loss_grid == "largest":
        return ((max(sizes), max(sizes)),)
    grids = []
    for resolution, size in zip(net.resolutions, sizes, strict=True):
        path = net.at(resolution)
        with eval_mode([path]):
            logits = task.logits(path(example_input(path, size)))
        grids.append((logits.shape[-2], logits.shape[-1]))
    return tuple(grids)
