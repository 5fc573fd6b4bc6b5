"""Results of an evaluation as plain data and as tables: nothing is lost in CSV, text and Markdown hold the same."""

import csv
import io
import json
from dataclasses import replace

from rsconvert.evaluation import Accuracy, Evaluation, Paired

RESULT = Evaluation(
    10, {32: Accuracy(50.0, 90.0, 2_500_000), 28: Accuracy(40.0, 80.0, 900, True)}, Accuracy(60.0, 95.0)
)


def test_a_result_becomes_plain_data() -> None:
    assert json.loads(json.dumps(RESULT.to_dict())) == {
        "count": 10,
        "resolutions": {
            "32": {"top1": 50.0, "top5": 90.0, "multiply_adds": 2_500_000, "interpolated": False},
            "28": {"top1": 40.0, "top5": 80.0, "multiply_adds": 900, "interpolated": True},
        },
        "ensemble": {"top1": 60.0, "top5": 95.0},
    }
    assert replace(RESULT, ensemble=None).to_dict()["ensemble"] is None
    assert RESULT.mean_score == 45.0


def test_a_result_becomes_a_table() -> None:
    assert [line.split() for line in str(RESULT).splitlines()] == [
        [
            "resolution",
            "top-1",
            "(%)",
            "95",
            "%",
            "top-5",
            "(%)",
            "calibration",
            "error",
            "(%)",
            "multiply-adds",
            "(M)",
        ],
        ["32", "50.00", "90.00", "2.5"],
        ["28", "40.00", "80.00", "0.0", "interpolated"],
        ["ensemble", "60.00", "95.00"],
        ["10", "images."],
    ]


def test_a_result_is_a_short_line_and_a_table_of_html() -> None:
    assert repr(RESULT) == "<Evaluation of 10 images, top1 in percent at 32: 50.0, 28: 40.0, ensemble: 60.0>"
    assert RESULT._repr_html_().startswith("<table>")
    assert RESULT._repr_html_().count("<tr>") == 4


ROW = Accuracy(50.0, 90.0, 2_500_000, False, (20.0, 80.0), 4.25, (100.0, None))
WORSE = replace(ROW, top1=1 / 3, paired=Paired(9, 1, 0.02), interpolated=True)
COMPARED = Evaluation(
    10,
    {32: ROW, (24, 40): replace(ROW, top1=40.0, interpolated=True)},
    replace(ROW, top1=60.0, multiply_adds=None),
    {"I-32": Evaluation(10, {32: WORSE, (24, 40): replace(WORSE, paired=Paired(2, 2, 1.0))}, None)},
    ("cat", "dog"),
)


def test_csv_holds_every_figure_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(COMPARED.as_csv())))
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
    lines = str(COMPARED).splitlines()
    assert lines[1].split() == ["32", "50.00", "20.0-80.0", "90.00", "4.2", "2.5", "0.33*"]
    assert lines[2].split() == ["24x40", "40.00", "20.0-80.0", "90.00", "4.2", "2.5", "0.33", "interpolated"]
    assert lines[3].split() == ["ensemble", "60.00", "20.0-80.0", "90.00", "4.2"]
    assert lines[4].startswith("10 images. Of baselines")
    assert "McNemar" in lines[4]
    assert [line.split() for line in lines[6:]] == [
        ["class", "32", "24x40"],
        ["cat", "100.0", "100.0"],
        ["dog", "-", "-"],
    ]


def test_markdown_is_a_table_of_the_same_cells() -> None:
    table, note, classes = COMPARED.as_markdown().split("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert {len(row) for row in rows} == {8}
    assert set(rows[1]) == {"---"}
    assert rows[2] == ["32", "50.00", "20.0-80.0", "90.00", "4.2", "2.5", "0.33*", ""]
    assert note.startswith("10 images.")
    assert classes.splitlines()[-1] == "| dog | - | - |"
