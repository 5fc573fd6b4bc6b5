"""The paper's tables and figures, ways to train compared, and the report about a network."""

from rsconvert.study.batchnorm import batchnorm_sets, plot_batchnorm
from rsconvert.study.comparison import Plan, compare, load_others, plan_comparison
from rsconvert.study.complementarity import complementarity_data, complementarity_of, plot_complementarity
from rsconvert.study.curves import dense_resolutions, plot_accuracy
from rsconvert.study.figures import ENDINGS, save_figures, write_analysis
from rsconvert.study.importance import importance, plot_importance
from rsconvert.study.pooling import plot_pooling, pooled_values
from rsconvert.study.report import write_report

__all__ = [
    "ENDINGS",
    "Plan",
    "batchnorm_sets",
    "compare",
    "complementarity_data",
    "complementarity_of",
    "dense_resolutions",
    "importance",
    "load_others",
    "plan_comparison",
    "plot_accuracy",
    "plot_batchnorm",
    "plot_complementarity",
    "plot_importance",
    "plot_pooling",
    "pooled_values",
    "save_figures",
    "write_analysis",
    "write_report",
]
