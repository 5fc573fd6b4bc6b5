"""Run time: the choice of a path, by a budget or image by image.

net, its table of costs → a path within a budget (`budget`)
net, labelled images → thresholds (`thresholds`) → a cascade of its paths (`cascade`), fitted and measured
(`cascade_fit`, `cascade_report`)
"""

from rsconvert.runtime.budget import for_budget, resolution_for_budget
from rsconvert.runtime.cascade import Cascade, cascade
from rsconvert.runtime.cascade_fit import fit_cascade

__all__ = ["Cascade", "cascade", "fit_cascade", "for_budget", "resolution_for_budget"]
