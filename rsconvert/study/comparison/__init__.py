"""The comparison of ways to train: I-Nets, parallel training, RS-Net and their variants, with one budget for all.

names → `methods` → `plan` → `runs` → `table` → `figures`, `report`
"""

from rsconvert.study.comparison.compare import compare, plan_comparison
from rsconvert.study.comparison.methods import KNOWN
from rsconvert.study.comparison.plan import Plan, PlannedRun
from rsconvert.study.comparison.results import Comparison, Line, RunFacts

__all__ = ["KNOWN", "Comparison", "Line", "Plan", "PlannedRun", "RunFacts", "compare", "plan_comparison"]
