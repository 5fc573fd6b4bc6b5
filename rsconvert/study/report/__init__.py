"""The report: one HTML file about a network, with a slider over its resolutions.

network, images → predictions → `facts` with `charts` → `page`
"""

from rsconvert.study.report.page import write_report

__all__ = ["write_report"]
