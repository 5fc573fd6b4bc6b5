"""The comparison of ways to train: I-Nets, parallel training, RS-Net and their variants, with one budget for all.

methods → `plan` → `runs` → `findings` → `writeup`
"""

from rsconvert.study.comparison.findings import Comparison, Line, RunFacts
from rsconvert.study.comparison.plan import KNOWN, Plan, PlannedRun, plan_comparison
from rsconvert.study.comparison.runs import compare

__all__ = ["KNOWN", "Comparison", "Line", "Plan", "PlannedRun", "RunFacts", "compare", "plan_comparison"]
