"""The report: each number in it is one of the comparison's, each file that it names is there; its figures."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pytest
from PIL import Image

from rsconvert.study.comparison.findings import Comparison, Line
from rsconvert.study.comparison.methods import KNOWN, another_network
from rsconvert.study.comparison.writeup import plot_accuracies, plot_costs, plot_gains, plot_scores, write_report
from rsconvert.study.figures import series_style


@pytest.fixture
def text(found: Comparison) -> str:
    write_report(found, "rsconvert compare net --data photos")
    return (found.folder / "report.md").read_text()


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def test_the_page_holds_tables_command_budget_times_and_machine(found: Comparison, text: str) -> None:
    assert "```sh\nrsconvert compare net --data photos\n```" in text
    assert found.table() in text
    assert found.gain_table() in text
    assert "on 200 images, mean ± sample standard deviation over the seeds (0, 5)" in text
    assert "| RS-Net | 0.70 | 0.30 |" in text
    assert "| `rsnet` | 1.5 | 6.5 |" in text
    assert "| `inets-32` | 0.5 |  |" in text
    assert "| `crop_area` | 0.35, 1 |" in text
    assert "`teacher`" not in text
    assert "divided by S" in text
    assert "last epoch's network" in text
    assert "- device cpu, name Some Processor" in text


def test_the_files_that_the_page_names_are_there(found: Comparison, text: str) -> None:
    links = set(re.findall(r"\]\(([^)]+)\)", text))
    assert links == {f"{name}.{end}" for name in ("accuracy", "cost", "gains", "scores") for end in ("png", "svg")} | {
        "accuracy.csv",
        "scores.csv",
    }
    assert [link for link in links if not (found.folder / link).is_file()] == []


def test_the_numbers_lie_beside(found: Comparison, text: str) -> None:
    assert (
        (found.folder / "accuracy.csv")
        .read_bytes()
        .startswith(b"method,title,resolution,trained,seed,top1,top5,gain\r\ninets,I-Nets,32,True,0,80.0,99.5,\r\n")
    )
    accuracies = rows(found.folder / "accuracy.csv")
    assert len(accuracies) == 2 * 2 + 3 * 2 + 3 * 2
    (row,) = [r for r in accuracies if (r["method"], r["resolution"], r["seed"]) == ("rsnet", "16", "5")]
    assert (row["top1"], row["top5"], row["gain"], row["trained"]) == ("69.0", "99.5", "8.0", "True")
    assert [r["gain"] for r in accuracies if r["resolution"] == "24"] == [""] * 4
    scores = rows(found.folder / "scores.csv")
    assert [r["score"] for r in scores if (r["seed"], r["resolution"]) == ("5", "32")] == ["0.5", "0.8"]
    assert {r["method"] for r in scores} == {"rsnet"}
    assert json.loads((found.folder / "report.json").read_text()) == json.loads(json.dumps(found.to_dict()))


def test_without_i_nets_there_are_no_gains(found: Comparison) -> None:
    alone = replace(found, methods=found.methods[1:], lines=found.lines[2:], runs=found.runs[:2])
    write_report(alone)
    text = (found.folder / "report.md").read_text()
    assert "ains" not in text
    assert "```" not in text
    assert not (found.folder / "gains.png").exists()


def test_of_one_seed_the_page_says_whose_interval_it_shows(found: Comparison) -> None:
    write_report(replace(found, seeds=(0,)))
    text = (found.folder / "report.md").read_text()
    assert "on 200 images, of one seed (0), ± half of the 95 % interval over the images." in text


def test_other_networks_have_a_section(found: Comparison) -> None:
    method = another_network("narrow", 32)
    by_seed = {32: {0: 70.0, 5: 71.0}}
    line = Line(method.name, "narrow", method, (32,), by_seed, by_seed, {32: 1_500_000})
    lines = (*(replace(one, multiply_adds=found.multiply_adds) for one in found.lines), line)
    wider = replace(found, methods=(*found.methods, method), lines=lines)
    write_report(wider)
    text = (found.folder / "report.md").read_text()
    assert "## Against other networks\n\nEach was trained at 32 pixels alone" in text
    assert "| narrow | 1.5 | 70.5 ± 0.7 | at 16 (1.0 M): -3.0 ± 1.4 |" in text
    assert json.loads((found.folder / "report.json").read_text())["methods"]["against-narrow"]["multiply_adds"] == {
        "32": 1_500_000
    }


def test_one_rate_for_all_is_told(found: Comparison) -> None:
    write_report(replace(found, settings={**found.settings, "same_lr": True}))
    assert "All methods learn at the same rate." in (found.folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("plot", "words"),
    [
        (plot_accuracies, ("I-Nets", "I-32", "RS-Net", "top-1 (%)", "resolution (pixels); hollow: not trained", "16")),
        (plot_costs, ("I-Nets", "I-32", "RS-Net", "top-1 (%)", "multiply-adds (millions)")),
        (plot_gains, ("RS-Net", "top-1 against the I-Nets (points)", "32", "16")),
        (plot_scores, ("RS-Net", "importance score", "epoch", "resolution (pixels)", "32", "16")),
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


def test_a_method_has_one_colour_and_the_resolutions_rise_in_every_figure(found: Comparison, tmp_path: Path) -> None:
    with mpl.rc_context({"svg.fonttype": "none"}):
        plot_accuracies(found, tmp_path / "accuracy")
        plot_gains(found, tmp_path / "gains")
    curves, bars = ((tmp_path / f"{name}.svg").read_text() for name in ("accuracy", "gains"))
    for text in (curves, bars):
        assert series_style(0)["color"] in text, "RS-Net has it in every figure"
        assert text.index(">16<") < text.index(">32<")
    assert series_style(1)["color"] in curves
    assert series_style(1)["color"] not in bars, "that is the I-Nets' colour"


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
        replace(line, name=f"{line.name}-x", method=replace(line.method, variant="crops 0.08-1", baseline="inets-x"))
        for line in found.lines
    )
    with mpl.rc_context({"svg.fonttype": "none"}):
        plot(replace(found, lines=(*found.lines, *cropped)), tmp_path / "figure")
    text = (tmp_path / "figure.svg").read_text()
    assert (text.count(">crops 0.35-1<"), text.count(">crops 0.08-1<"), text.count(">RS-Net<")) == (1, 1, 1)
