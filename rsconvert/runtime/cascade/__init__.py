"""The cascade: an image is tried at a small resolution first, and at larger ones while the answer is unsure."""

from rsconvert.runtime.cascade.cascade import Cascade, cascade
from rsconvert.runtime.cascade.fit import fit_cascade, halves
from rsconvert.runtime.cascade.results import CascadeReport
from rsconvert.runtime.cascade.thresholds import Fitted, answering_stage, fit_thresholds

__all__ = [
    "Cascade",
    "CascadeReport",
    "Fitted",
    "answering_stage",
    "cascade",
    "fit_cascade",
    "fit_thresholds",
    "halves",
]
