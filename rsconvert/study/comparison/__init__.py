"""The comparison of ways to train: I-Nets, parallel training, RS-Net and their variants, with one budget for all.

`methods`, `others` → `plan` → `fits` and `runs` → `findings` → `writeup`
"""

from rsconvert.study.comparison.others import load_others
from rsconvert.study.comparison.plan import Plan, plan_comparison
from rsconvert.study.comparison.runs import compare

__all__ = ["Plan", "compare", "load_others", "plan_comparison"]
