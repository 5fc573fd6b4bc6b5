"""Analysis: the paper's tables and figures, of one's own networks and images.

Each module holds one analysis: what is computed, as plain data, and how it is drawn, in the style of `style`.
"""

from rsconvert.analysis.accuracy import dense_resolutions, plot_accuracy
from rsconvert.analysis.complementarity import (
    Complementarity,
    complementarity,
    own_resolutions,
    plot_complementarity,
    right_answers,
)
from rsconvert.analysis.files import ENDINGS, write_analysis
from rsconvert.analysis.style import COLUMN, PAGE, new_figure, paper_style, save_figure, series_style, step_style
from rsconvert.analysis.tables import Table

__all__ = [
    "COLUMN",
    "ENDINGS",
    "PAGE",
    "Complementarity",
    "Table",
    "complementarity",
    "dense_resolutions",
    "new_figure",
    "own_resolutions",
    "paper_style",
    "plot_accuracy",
    "plot_complementarity",
    "right_answers",
    "save_figure",
    "series_style",
    "step_style",
    "write_analysis",
]
