"""Analysis: the paper's tables and figures, of one's own networks and images.

Each module holds one analysis: what is computed, as plain data, and how it is drawn, in the style of `style`.
"""

from rsconvert.analysis.accuracy import dense_resolutions, plot_accuracy
from rsconvert.analysis.batchnorm import BatchNormSets, batchnorm_sets, plot_batchnorm
from rsconvert.analysis.complementarity import (
    Complementarity,
    complementarity,
    complementarity_data,
    own_resolutions,
    plot_complementarity,
    right_answers,
)
from rsconvert.analysis.files import ENDINGS, write_analysis
from rsconvert.analysis.importance import Importance, importance, plot_importance
from rsconvert.analysis.pooling import PooledValues, plot_pooling, pooled_values
from rsconvert.analysis.style import COLUMN, PAGE, new_figure, paper_style, save_figure, series_style, step_style
from rsconvert.analysis.tables import Table

__all__ = [
    "COLUMN",
    "ENDINGS",
    "PAGE",
    "BatchNormSets",
    "Complementarity",
    "Importance",
    "PooledValues",
    "Table",
    "batchnorm_sets",
    "complementarity",
    "complementarity_data",
    "dense_resolutions",
    "importance",
    "new_figure",
    "own_resolutions",
    "paper_style",
    "plot_accuracy",
    "plot_batchnorm",
    "plot_complementarity",
    "plot_importance",
    "plot_pooling",
    "pooled_values",
    "right_answers",
    "save_figure",
    "series_style",
    "step_style",
    "write_analysis",
]
