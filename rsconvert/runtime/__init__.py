"""Run time: what a path costs on a machine, and the choice of one: by a budget, or image by image.

net → paths in several forms (`forms`) → latency, memory → Benchmark (`benchmark`, `results`) → the table in the
checkpoint (`table`) → a path within a budget (`budget`)
net, labelled images → thresholds (`thresholds`) → a cascade of its paths (`cascade`), fitted, run and told
(`cascade_fit`, `cascade_run`, `cascade_report`)
"""

from rsconvert.runtime.budget import for_budget, resolution_for_budget
from rsconvert.runtime.cascade import (
    Cascade,
    CascadeReport,
    Fitted,
    answering_stage,
    cascade,
    fit_cascade,
    fit_thresholds,
    halves,
)

__all__ = [
    "Cascade",
    "CascadeReport",
    "Fitted",
    "answering_stage",
    "cascade",
    "fit_cascade",
    "fit_thresholds",
    "for_budget",
    "halves",
    "resolution_for_budget",
]
