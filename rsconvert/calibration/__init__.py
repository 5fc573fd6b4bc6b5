"""calibration"""

from rsconvert.calibration.calibrate import calibrate

__all__ = ["calibrate"]
