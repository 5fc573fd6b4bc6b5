"""Training: all resolutions together, each a teacher of the smaller ones."""

from rsconvert.training.finetune import FinetuneResult, finetune, keep_freed_memory
from rsconvert.training.linear_probe import Features, extract_features, fit_classifier
from rsconvert.training.loss import mred_loss
from rsconvert.training.run import FREE_SETTINGS, Row, data_identity, open_for_training, preview, read_summary

__all__ = [
    "FREE_SETTINGS",
    "Features",
    "FinetuneResult",
    "Row",
    "data_identity",
    "extract_features",
    "finetune",
    "fit_classifier",
    "keep_freed_memory",
    "mred_loss",
    "open_for_training",
    "preview",
    "read_summary",
]
