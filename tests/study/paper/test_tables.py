"""A table: rounded for people, in full for programs."""

import csv
import io

from rsconvert.study import Table

TABLE = Table(("name", "share", "n"), [("a, b", 1 / 3, 2), ("c", None, 30)], "of 4")


def test_text_is_aligned() -> None:
    assert TABLE.as_text() == "  name  share   n\n  a, b   0.33   2\n     c         30\nof 4"


def test_markdown_is_a_table() -> None:
    lines = ["| name | share | n |", "| --- | --- | --- |", "| a, b | 0.33 | 2 |", "| c |  | 30 |", "", "of 4"]
    assert TABLE.as_markdown().splitlines() == lines
    assert Table(("a",), []).as_markdown() == "| a |\n| --- |"


def test_csv_has_every_digit() -> None:
    rows = list(csv.reader(io.StringIO(TABLE.as_csv())))
    assert rows == [["name", "share", "n"], ["a, b", "0.3333333333333333", "2"], ["c", "", "30"]]
