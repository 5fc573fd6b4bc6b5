"""Exports: one path as a file for software that does not know rsconvert."""

from rsconvert.export.fold import FoldReport, fold_batchnorm
from rsconvert.export.stock import export_timm, export_torchvision

__all__ = ["FoldReport", "export_timm", "export_torchvision", "fold_batchnorm"]
