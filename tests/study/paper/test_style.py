"""The style: figures of the asked size, curves that stay apart in grey, nothing of it left behind."""

import itertools
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from rsconvert.study.paper.style import COLUMN

from rsconvert.study import new_figure, paper_style, save_figure, series_style, step_style


def test_a_figure_has_the_width_of_a_column_at_300_dots_per_inch(tmp_path: Path) -> None:
    save_figure(new_figure(COLUMN, 2), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1020, 600)


@pytest.mark.parametrize("ending", ["svg", "pdf", "png"])
def test_the_same_figure_is_the_same_file(tmp_path: Path, ending: str) -> None:
    for name in ("a", "b"):
        figure = new_figure(COLUMN, 2)
        figure.subplots().fill_between([0, 1], [1, 2], label="x")
        save_figure(figure, tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_the_callers_settings_hold_again() -> None:
    before = mpl.rcParams["font.size"]
    inside = paper_style(lambda: mpl.rcParams["font.size"])
    with pytest.raises(ZeroDivisionError):
        paper_style(lambda: 1 / 0)()
    assert (inside(), inside(), mpl.rcParams["font.size"]) == (8, 8, before)


def grey(colour: object) -> float:
    """Lightness in print without colour (Rec. 709)."""
    return float(np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)))  # type: ignore[arg-type]


def test_curves_without_an_order_differ_in_marker_and_line_too() -> None:
    styles = [series_style(i) for i in range(7)]
    for key in ("color", "marker", "linestyle"):
        assert len({str(style[key]) for style in styles}) == 7
    assert series_style(7) == styles[0]


def test_curves_in_order_get_lighter_step_by_step() -> None:
    shades = [grey(step_style(i, 5)["color"]) for i in range(5)]
    assert all(later - earlier > 0.05 for earlier, later in itertools.pairwise(shades))
    assert shades[-1] < 0.75, "the lightest is still seen on white"
    assert step_style(0, 1)["linestyle"] == "-"
