"""Run time: what a path costs on a machine, and the choice of one: by a budget, or image by image.

net → paths in several forms (`forms`) → latency, memory → Benchmark (`benchmark`, `results`) → the table in the
checkpoint (`table`) → a path within a budget (`budget`)
net, labelled images → thresholds (`thresholds`) → a cascade of its paths (`cascade`), fitted, run and told
(`cascade_fit`, `cascade_run`, `cascade_report`)
"""

from rsconvert.runtime.benchmark import measure_costs
from rsconvert.runtime.budget import for_budget, resolution_for_budget
from rsconvert.runtime.cascade import Cascade, CascadeOutput, cascade
from rsconvert.runtime.cascade_fit import fit_cascade, halves
from rsconvert.runtime.cascade_report import CascadeReport
from rsconvert.runtime.forms import FORMS
from rsconvert.runtime.machine import machine_key, processor_name
from rsconvert.runtime.results import Benchmark, Cost
from rsconvert.runtime.switching import Switching, measure_switching
from rsconvert.runtime.table import store_costs, stored_costs
from rsconvert.runtime.thresholds import Fitted, answering_stage, fit_thresholds

__all__ = [
    "FORMS",
    "Benchmark",
    "Cascade",
    "CascadeOutput",
    "CascadeReport",
    "Cost",
    "Fitted",
    "Switching",
    "answering_stage",
    "cascade",
    "fit_cascade",
    "fit_thresholds",
    "for_budget",
    "halves",
    "machine_key",
    "measure_costs",
    "measure_switching",
    "processor_name",
    "resolution_for_budget",
    "store_costs",
    "stored_costs",
]
