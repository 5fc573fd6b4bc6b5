"""The report: one HTML file about a network, with a slider over its resolutions.

network, images → answers → `facts` with `charts` and `examples` → `page` → one file (`writing`)
"""

from rsconvert.study.report.class_names import read_class_names
from rsconvert.study.report.page import render
from rsconvert.study.report.writing import write_report

__all__ = ["read_class_names", "render", "write_report"]
