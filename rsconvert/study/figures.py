"""Figures as a paper prints them: column widths, one font, styles that differ without colour, files."""

import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypedDict

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rsconvert.checkpoint import replacing

__all__ = [
    "COLUMN",
    "ENDINGS",
    "PAGE",
    "legend_above",
    "new_figure",
    "paper_style",
    "save_figures",
    "series_places",
    "series_style",
    "step_style",
    "write_analysis",
]

COLUMN, PAGE = 3.4, 7.0
"""Widths in inches: of one column, and of the page."""

ENDINGS = (".png", ".svg", ".csv", ".md")

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
    "svg.hashsalt": "rsconvert",
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

# One place per method in every figure, where that is free.
_PLACES = ("RS-Net", "I-Nets", "one I-Net", "parallel", "shared BN", "vanilla", "top-down")

paper_style = rc_context(_RC)
"""A decorator: the function draws in this style; the caller's own settings of matplotlib hold again after it."""


class Style(TypedDict, total=False):
    """How matplotlib draws a curve."""

    color: Any
    marker: str
    linestyle: Any


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of a size in inches that needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def legend_above(figure: Figure, panels: Sequence[Axes], columns: int, title: str | None = None) -> None:
    """Put one legend of all curves of the panels above them; curves of one name are one entry."""
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels]
    handles = {label: handle for pair in pairs for handle, label in pair}
    columns = min(columns, len(handles))
    figure.legend(handles.values(), handles, title=title, loc="outside upper center", ncols=columns)


@paper_style
def save_figures(figure: Figure, stem: str | Path) -> None:
    """Write a figure as ``stem.png``, with 300 dots per inch, and as ``stem.svg``."""
    with replacing(f"{stem}.png") as part:
        figure.savefig(part, format="png", dpi=300)
    with replacing(f"{stem}.svg") as part:
        figure.savefig(part, format="svg", metadata={"Date": None})  # the same figure is the same file


def write_analysis(stem: str | Path, figure: Figure, *, csv: str, markdown: str) -> list[Path]:
    """Write ``stem.png`` and ``.svg``, the data as ``.csv``, the table as ``.md``; existing files are replaced.

    Raises:
        OSError: the folder can't be made or written.
    """
    Path(stem).parent.mkdir(parents=True, exist_ok=True)
    save_figures(figure, stem)
    for ending, text in ((".csv", csv), (".md", f"{markdown}\n")):
        with replacing(f"{stem}{ending}") as part:
            part.write_text(text, encoding="utf-8")
    return [Path(f"{stem}{ending}") for ending in ENDINGS]


def series_style(index: int) -> Style:
    """Return colour, marker and line of one of several curves that have no order."""
    colour, marker, line = _SERIES[index % len(_SERIES)]
    return {"color": colour, "marker": marker, "linestyle": line}


def series_places(names: Sequence[str], own: str | None = None) -> dict[str, int]:
    """Return the place of each name among the styles: a method has the same in every figure.

    >>> series_places(["I-Nets", "I-224", "mine", "RS-Net"])
    {'I-Nets': 1, 'I-224': 2, 'RS-Net': 0, 'mine': 3}

    Args:
        own: the name of the switchable network that a figure is about, which takes the place of RS-Net.
    """
    places: dict[str, int] = {}
    for name in names:
        method = "RS-Net" if name == own else re.sub(r"I-\d+", "one I-Net", name)
        if method in _PLACES and _PLACES.index(method) not in places.values():
            places[name] = _PLACES.index(method)
    free = (place for place in count() if place not in places.values())
    return places | {name: next(free) for name in names if name not in places}


def step_style(index: int, count: int) -> Style:
    """Return colour and line of one of several curves in order, such as resolutions: from dark to light."""
    return {"color": colormaps["viridis"](0.8 * index / max(1, count - 1)), "linestyle": _SERIES[index % 6][2]}
