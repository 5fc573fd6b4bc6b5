"""A run of training: epochs, what is kept in its folder, and how it resumes after a stop."""

from rsconvert.training.run.epochs import Run
from rsconvert.training.run.folder import RunFolder
from rsconvert.training.run.preview import open_for_training, preview
from rsconvert.training.run.state import FREE_SETTINGS, data_identity
from rsconvert.training.run.summary import Row, accuracies, epoch_line, epochs_table, read_summary

__all__ = [
    "FREE_SETTINGS",
    "Row",
    "Run",
    "RunFolder",
    "accuracies",
    "data_identity",
    "epoch_line",
    "epochs_table",
    "open_for_training",
    "preview",
    "read_summary",
]
