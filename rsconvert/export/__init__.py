"""Exports: one path as a file for software that does not know rsconvert."""

from rsconvert.export.stock import export_timm, export_torchvision

__all__ = ["export_timm", "export_torchvision"]
