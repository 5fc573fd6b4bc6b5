"""Calibration: BN statistics of each resolution from images without labels."""

from rsconvert.calibration.calibrate import calibrate
from rsconvert.calibration.low_bit import quantize_calibrated

__all__ = ["calibrate", "quantize_calibrated"]
