"""The paper's tables and figures, of one's own networks and images."""

from rsconvert.study.paper.accuracy import dense_resolutions, plot_accuracy
from rsconvert.study.paper.batchnorm import batchnorm_sets, plot_batchnorm
from rsconvert.study.paper.complementarity import (
    Complementarity,
    complementarity,
    complementarity_data,
    own_resolutions,
    plot_complementarity,
    right_answers,
)
from rsconvert.study.paper.files import ENDINGS, write_analysis
from rsconvert.study.paper.importance import importance, plot_importance
from rsconvert.study.paper.pooling import plot_pooling, pooled_values
from rsconvert.study.paper.style import new_figure, paper_style, save_figure, series_style, step_style
from rsconvert.study.paper.tables import Table

__all__ = [
    "ENDINGS",
    "Complementarity",
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
