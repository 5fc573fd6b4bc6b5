"""The demo: the whole story on drawn images, offline."""

from rsconvert.demo.drawing import PATTERNS, draw, write_images
from rsconvert.demo.story import DemoResult, run_demo

__all__ = ["PATTERNS", "DemoResult", "draw", "run_demo", "write_images"]
