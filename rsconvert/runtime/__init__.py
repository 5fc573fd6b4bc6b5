"""Run time: what a path costs on a machine, and the choice of one by a budget.

net → paths in several forms (`forms`) → latency, memory → Benchmark (`benchmark`, `results`) → the table in the
checkpoint (`table`) → a path within a budget (`budget`)
"""

from rsconvert.runtime.benchmark import amp_name, measure_costs
from rsconvert.runtime.budget import for_budget, resolution_for_budget
from rsconvert.runtime.forms import FORMS
from rsconvert.runtime.machine import machine_key, processor_name
from rsconvert.runtime.results import Benchmark, Cost
from rsconvert.runtime.switching import Switching, measure_switching
from rsconvert.runtime.table import store_costs, stored_costs

__all__ = [
    "FORMS",
    "Benchmark",
    "Cost",
    "Switching",
    "amp_name",
    "for_budget",
    "machine_key",
    "measure_costs",
    "measure_switching",
    "processor_name",
    "resolution_for_budget",
    "store_costs",
    "stored_costs",
]
