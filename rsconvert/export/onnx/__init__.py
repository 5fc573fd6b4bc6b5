"""ONNX files: of one resolution, or one that switches by the size of its input."""

from rsconvert.export.onnx.writing import export_onnx

__all__ = ["export_onnx"]
