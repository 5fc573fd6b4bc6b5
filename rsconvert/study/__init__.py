"""The paper's tables and figures, ways to train compared, and the report about a network."""

from rsconvert.study.batchnorm import batchnorm_sets, plot_batchnorm
from rsconvert.study.comparison import Plan, compare, plan_comparison
from rsconvert.study.complementarity import (
    Complementarity,
    complementarity,
    complementarity_data,
    own_resolutions,
    plot_complementarity,
    right_answers,
)
from rsconvert.study.curves import dense_resolutions, plot_accuracy
from rsconvert.study.figures import ENDINGS, save_figures, write_analysis
from rsconvert.study.importance import importance, plot_importance
from rsconvert.study.pooling import plot_pooling, pooled_values
from rsconvert.study.report import write_report

__all__ = [
    "ENDINGS",
    "Complementarity",
    "Plan",
    "batchnorm_sets",
    "compare",
    "complementarity",
    "complementarity_data",
    "dense_resolutions",
    "importance",
    "own_resolutions",
    "plan_comparison",
    "plot_accuracy",
    "plot_batchnorm",
    "plot_complementarity",
    "plot_importance",
    "plot_pooling",
    "pooled_values",
    "right_answers",
    "save_figures",
    "write_analysis",
    "write_report",
]
