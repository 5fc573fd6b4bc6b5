"""The comparison of ways to train: I-Nets, parallel training, RS-Net and their variants, with one budget for all.

names → `methods` → `plan` → `runs` → `table` → `figures`, `report`
"""

from rsconvert.comparison.compare import compare, plan_comparison
from rsconvert.comparison.methods import KNOWN, Method
from rsconvert.comparison.plan import Plan, PlannedRun
from rsconvert.comparison.table import Comparison, Line, RunFacts

__all__ = ["KNOWN", "Comparison", "Line", "Method", "Plan", "PlannedRun", "RunFacts", "compare", "plan_comparison"]
