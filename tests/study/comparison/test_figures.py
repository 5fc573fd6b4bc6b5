from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pytest
from PIL import Image
from rsconvert.study.comparison.figures import plot_accuracies, plot_gains, plot_scores

from rsconvert.study import KNOWN, Comparison


@pytest.mark.parametrize(
    ("plot", "words"),
    [
        (plot_accuracies, ("I-Nets", "I-32", "RS-Net", "top-1 (%)", "resolution (pixels); hollow: not trained", "24")),
        (plot_gains, ("RS-Net", "top-1 against the I-Nets (points)", "32", "16")),
        (plot_scores, ("RS-Net", "importance score", "epoch", "32", "16")),
    ],
)
def test_a_figure_is_written_twice_and_names_what_it_shows(
    found: Comparison, tmp_path: Path, plot: Callable[[Comparison, Path], None], words: tuple[str, ...]
) -> None:
    with mpl.rc_context({"svg.fonttype": "none"}):
        plot(found, tmp_path / "figure")
    text = (tmp_path / "figure.svg").read_text()
    assert [word for word in words if f">{word}<" not in text] == []
    with Image.open(tmp_path / "figure.png") as image:
        assert min(image.size) > 300


def test_gains_show_what_was_trained_at_several_resolutions(found: Comparison, tmp_path: Path) -> None:
    with mpl.rc_context({"svg.fonttype": "none"}):
        plot_gains(found, tmp_path / "figure")
    text = (tmp_path / "figure.svg").read_text()
    assert ">I-32<" not in text
    assert ">24<" not in text


def test_scores_have_a_panel_for_each_method(found: Comparison, tmp_path: Path) -> None:
    several = tuple(KNOWN[name] for name in ("rsnet", "parallel", "vanilla", "largest"))
    runs = tuple(replace(found.runs[0], method=method.name) for method in several)
    plot_scores(replace(found, methods=several, runs=runs), tmp_path / "four")
    plot_scores(found, tmp_path / "one")
    with Image.open(tmp_path / "four.png") as four, Image.open(tmp_path / "one.png") as one:
        assert four.size[0] > 2 * one.size[0]
        assert four.size[1] == 2 * one.size[1]


@pytest.mark.parametrize("plot", [plot_accuracies, plot_gains])
def test_another_crop_area_has_a_panel_beside(
    found: Comparison, tmp_path: Path, plot: Callable[[Comparison, Path], None]
) -> None:
    cropped = tuple(
        replace(line, name=f"{line.name}-x", variant="crops 0.08-1", baseline="inets-x") for line in found.lines
    )
    with mpl.rc_context({"svg.fonttype": "none"}):
        plot(replace(found, lines=(*found.lines, *cropped)), tmp_path / "figure")
    text = (tmp_path / "figure.svg").read_text()
    assert (text.count(">crops 0.35-1<"), text.count(">crops 0.08-1<"), text.count(">RS-Net<")) == (1, 1, 1)
