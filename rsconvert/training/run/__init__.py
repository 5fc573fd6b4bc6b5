"""A run of training: epochs, what is kept in its folder, and how it goes on after a stop."""

from rsconvert.training.run.epochs import Run
from rsconvert.training.run.folder import RunFolder
from rsconvert.training.run.identity import FREE_SETTINGS, data_identity
from rsconvert.training.run.opening import open_for_training
from rsconvert.training.run.preview import preview
from rsconvert.training.run.summary import Row, read_summary

__all__ = ["FREE_SETTINGS", "Row", "Run", "RunFolder", "data_identity", "open_for_training", "preview", "read_summary"]
