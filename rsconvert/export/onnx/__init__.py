"""ONNX files: of one resolution, or one that switches by the size of its input; in float32, float16 or int8."""

from rsconvert.export.onnx.int8_files import Int8Paths
from rsconvert.export.onnx.ranges import Int8Report, quantize
from rsconvert.export.onnx.running import int8_paths, onnx_network
from rsconvert.export.onnx.writing import export_onnx

__all__ = ["Int8Paths", "Int8Report", "export_onnx", "int8_paths", "onnx_network", "quantize"]
