"""The demo: the whole story on drawn images, offline."""

from rsconvert.demo.story import DemoResult, run_demo, write_images

__all__ = ["DemoResult", "run_demo", "write_images"]
