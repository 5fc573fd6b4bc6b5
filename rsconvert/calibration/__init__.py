"""Calibration: BN statistics of each resolution from images without labels."""

from rsconvert.calibration.calibrate import calibrate

__all__ = ["calibrate"]
