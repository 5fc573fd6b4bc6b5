"""Exports: the network, or one path of it, as a file for software that does not know rsconvert."""

from rsconvert.export.hub import export_hub
from rsconvert.export.onnx import Int8Paths, Int8Report, export_onnx, int8_paths, onnx_network, quantize
from rsconvert.export.opening import Export, open_export, open_onnx
from rsconvert.export.plain import export_plain, export_program, export_timm, export_torchvision
from rsconvert.export.target import Exported, replacing_folder
from rsconvert.export.verification import Agreement, Verification, verify_export

__all__ = [
    "Agreement",
    "Export",
    "Exported",
    "Int8Paths",
    "Int8Report",
    "Verification",
    "export_hub",
    "export_onnx",
    "export_plain",
    "export_program",
    "export_timm",
    "export_torchvision",
    "int8_paths",
    "onnx_network",
    "open_export",
    "open_onnx",
    "quantize",
    "replacing_folder",
    "verify_export",
]
