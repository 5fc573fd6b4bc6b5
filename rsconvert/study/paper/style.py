"""How figures look: the sizes of a paper's columns, one font, styles that stay apart without colour."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from matplotlib import colormaps, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["COLUMN", "PAGE", "new_figure", "paper_style", "save_figure", "series_style", "step_style"]

COLUMN, PAGE = 3.4, 7.0
"""Widths in inches: of one column, and of the page."""

_RC: Any = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "svg.hashsalt": "rsconvert",  # the same figure is the same file
}

# The colours of Okabe and Ito without yellow; each with a marker and a line of its own, for print without colour.
_SERIES = (
    ("#0072b2", "o", "-"),
    ("#d55e00", "s", "--"),
    ("#009e73", "^", "-."),
    ("#cc79a7", "D", ":"),
    ("#56b4e9", "v", (0, (5, 1))),
    ("#e69f00", "P", (0, (3, 1, 1, 1, 1, 1))),
    ("#000000", "X", (0, (1, 1))),
)
_DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def paper_style(draw: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Make a function draw in this style; the caller's own settings of matplotlib hold again after it."""
    styled: Callable[_Arguments, _Result] = rc_context(_RC)(draw)
    return styled


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of a size in inches that needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@paper_style
def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure in the format of the path's ending: ``.png`` with 300 dots per inch, ``.svg``, ``.pdf``."""
    # Only SVG and PDF keep the hour, under other names.
    unknown: Mapping[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    figure.savefig(path, dpi=300, metadata=unknown.get(Path(path).suffix.lower()))


def series_style(index: int) -> dict[str, Any]:
    """Return colour, marker and line of one of several curves that have no order."""
    colour, marker, line = _SERIES[index % len(_SERIES)]
    return {"color": colour, "marker": marker, "linestyle": line}


def step_style(index: int, count: int) -> dict[str, Any]:
    """Return colour and line of one of several curves in order, such as resolutions: from dark to light."""
    return {"color": colormaps["viridis"](0.8 * index / max(1, count - 1)), "linestyle": _DASHES[index % len(_DASHES)]}
