"""The forms of an evaluation: nothing is lost in CSV, text and Markdown hold the same cells."""

import csv
import io
from dataclasses import replace

from rsconvert.evaluation import Accuracy, Evaluation, Paired, as_csv, as_markdown, as_text

ROW = Accuracy(50.0, 90.0, 2_500_000, False, (20.0, 80.0), 4.25, (100.0, None))
WORSE = replace(ROW, top1=1 / 3, paired=Paired(9, 1, 0.02), interpolated=True)
RESULT = Evaluation(
    10,
    {32: ROW, (24, 40): replace(ROW, top1=40.0, interpolated=True)},
    replace(ROW, top1=60.0, multiply_adds=None),
    {"I-32": Evaluation(10, {32: WORSE, (24, 40): replace(WORSE, paired=Paired(2, 2, 1.0))}, None)},
    ("cat", "dog"),
)


def test_csv_holds_every_figure_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(RESULT))))
    assert [(row["network"], row["resolution"]) for row in rows] == [
        *[("network", "32"), ("network", "24x40"), ("network", "ensemble")],
        *[("I-32", "32"), ("I-32", "24x40")],
    ]
    last = rows[-2]
    assert (float(last["top1"]), float(last["top1_low"]), float(last["top1_high"])) == (1 / 3, 20, 80)
    assert (last["only_network"], last["only_baseline"], last["p_value"]) == ("9", "1", "0.02")
    assert (last["interpolated"], last["multiply_adds"], last["calibration_error"]) == ("True", "2500000", "4.25")
    assert (last["top1 cat"], last["top1 dog"]) == ("100.0", "")


def test_text_shows_the_baseline_and_stars_what_differs() -> None:
    lines = as_text(RESULT).splitlines()
    assert lines[1].split() == ["32", "50.00", "20.0-80.0", "90.00", "4.2", "2.5", "0.33*"]
    assert lines[2].split() == ["24x40", "40.00", "20.0-80.0", "90.00", "4.2", "2.5", "0.33", "interpolated"]
    assert lines[3].split() == ["ensemble", "60.00", "20.0-80.0", "90.00", "4.2"]
    assert lines[4] == "10 images"
    assert "McNemar" in lines[5]
    assert [line.split() for line in lines[7:]] == [
        ["class", "32", "24x40"],
        ["cat", "100.0", "100.0"],
        ["dog", "-", "-"],
    ]


def test_markdown_is_a_table_of_the_same_cells() -> None:
    table, note, classes = as_markdown(RESULT).split("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert {len(row) for row in rows} == {8}
    assert set(rows[1]) == {"---"}
    assert rows[2] == ["32", "50.00", "20.0-80.0", "90.00", "4.2", "2.5", "0.33*", ""]
    assert note.startswith("10 images.")
    assert classes.splitlines()[-1] == "| dog | - | - |"
