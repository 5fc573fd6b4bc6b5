"""Figures: of the asked size, curves that differ in grey, settings restored, four files of one name."""

import itertools
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from rsconvert.study.figures import (
    COLUMN,
    ENDINGS,
    legend_above,
    new_figure,
    paper_style,
    save_figures,
    series_places,
    series_style,
    step_style,
    write_analysis,
)


def test_a_figure_has_the_width_of_a_column_at_300_dots_per_inch(tmp_path: Path) -> None:
    save_figures(new_figure(COLUMN, 2), tmp_path / "a")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1020, 600)


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        figure = new_figure(COLUMN, 2)
        figure.subplots().fill_between([0, 1], [1, 2], label="x")
        save_figures(figure, tmp_path / name)
    for ending in ("png", "svg"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_a_legend_has_each_name_once() -> None:
    figure = new_figure(COLUMN, 2)
    panels = figure.subplots(1, 2)
    for axes, names in zip(panels, ("ab", "bc"), strict=True):
        for name in names:
            axes.plot([0, 1], label=name)
    legend_above(figure, panels, 2, "letters")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["a", "b", "c"]
    assert legend.get_title().get_text() == "letters"


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


def test_four_files_of_one_name(tmp_path: Path) -> None:
    for csv in ("a,b\n", "c,d\n"):  # the second writes over the first
        files = write_analysis(tmp_path / "new" / "x.y", new_figure(1, 1), csv=csv, markdown="| a |")
        assert [file.name for file in files] == [f"x.y{ending}" for ending in ENDINGS]
        assert sorted(files) == sorted((tmp_path / "new").iterdir())
    png, svg, data, table = files
    assert png.read_bytes().startswith(b"\x89PNG")
    assert svg.read_text().startswith("<?xml")
    assert (data.read_text(), table.read_text()) == ("c,d\n", "| a |\n")


def test_a_folder_that_is_a_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(OSError, match="x"):
        write_analysis(tmp_path / "x" / "y", new_figure(1, 1), csv="", markdown="")


def test_a_method_has_its_place_in_every_figure() -> None:
    assert series_places(["mine", "I-Nets"], "mine") == {"mine": 0, "I-Nets": 1}
    assert series_places(["I-Nets", "I-64", "parallel", "RS-Net"]) == {
        "I-Nets": 1,
        "I-64": 2,
        "parallel": 3,
        "RS-Net": 0,
    }
    many = [f"net {i}" for i in range(9)]
    assert sorted(series_places([*many, "RS-Net", "I-64", "I-32"]).values()) == list(range(12))
