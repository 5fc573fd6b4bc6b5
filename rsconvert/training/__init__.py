"""Training: all resolutions together, each a teacher of the smaller ones.

What timm's training loop takes needs a timm that has tasks, so it is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from rsconvert.training.finetune import FinetuneResult, finetune, keep_freed_memory
from rsconvert.training.linear_probe import Features, extract_features, fit_classifier
from rsconvert.training.loss import mred_loss
from rsconvert.training.run import (
    FREE_SETTINGS,
    Row,
    accuracies,
    data_identity,
    epoch_line,
    open_for_training,
    preview,
    read_summary,
)
from rsconvert.training.step import FloatWeights, drop_float_weights, explain_defaults, fill_defaults, masks_of

if TYPE_CHECKING:
    from rsconvert.training.timm_task import MREDTask, ViewCollator

__all__ = [
    "FREE_SETTINGS",
    "Features",
    "FinetuneResult",
    "FloatWeights",
    "MREDTask",
    "Row",
    "ViewCollator",
    "accuracies",
    "data_identity",
    "drop_float_weights",
    "epoch_line",
    "explain_defaults",
    "extract_features",
    "fill_defaults",
    "finetune",
    "fit_classifier",
    "keep_freed_memory",
    "masks_of",
    "mred_loss",
    "open_for_training",
    "preview",
    "read_summary",
]


def __getattr__(name: str) -> Any:
    if name in ("MREDTask", "ViewCollator"):
        return getattr(importlib.import_module("rsconvert.training.timm_task"), name)
    raise AttributeError(f"module 'rsconvert.training' has no attribute {name!r}")
