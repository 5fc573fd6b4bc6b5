"""Text: a table rounded for people and in full for programs, values as a person writes them, files of pairs."""

import csv
import io
from pathlib import Path

import pytest

from rsconvert.text import Table, as_html_block, plain, printable, read_pairs

TABLE = Table(("name", "share", "n"), [("a, b", 1 / 3, 2), ("c", None, 30)], "of 4")
WORDS = r"(\S+)\s+(.+)"


def test_text_is_aligned_numbers_to_the_right() -> None:
    assert TABLE.as_text().splitlines() == ["name  share   n", "a, b   0.33   2", "c            30", "of 4"]


def test_markdown_is_a_table() -> None:
    lines = ["| name | share | n |", "| --- | --- | --- |", "| a, b | 0.33 | 2 |", "| c |  | 30 |", "", "of 4"]
    assert TABLE.as_markdown().splitlines() == lines
    assert Table(("a",), []).as_markdown() == "| a |\n| --- |"


def test_csv_has_every_digit() -> None:
    rows = list(csv.reader(io.StringIO(TABLE.as_csv())))
    assert rows == [["name", "share", "n"], ["a, b", "0.3333333333333333", "2"], ["c", "", "30"]]


@pytest.mark.parametrize("cell", ["=1+1", "+x", "-x", "@x", "\t=1", "\r=1", "\n=1"])
def test_csv_holds_no_formula_and_ends_no_row_early(cell: str) -> None:
    rows = list(csv.reader(io.StringIO(Table((cell,), [(cell,), ("-1.5",), (-1,), ("a, b",)]).as_csv(), newline="")))
    shown = f"'{cell}" if cell.isprintable() else repr(cell)[1:-1]
    assert rows == [[shown], [shown], ["-1.5"], ["-1"], ["a, b"]]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00012345, "0.0001234"), (1.0, "1"), ((0.35, 1.0), "0.35, 1"), ({"a": [1, 2.5]}, "a 1, 2.5"), (None, "None")],
)
def test_values_are_plain(value: object, text: str) -> None:
    assert plain(value) == text


@pytest.mark.parametrize("text", ["a 1\n\n  a 2 3 \n", '{"a": "1", "a": "2 3"}', "\ufeffa 1\r\na 2 3"])
def test_a_name_may_come_twice_in_a_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs").write_text(text, encoding="utf-8")
    assert read_pairs(tmp_path / "pairs", WORDS) == [("a", "1"), ("a", "2 3")]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs").write_text("a 1\n\nb\n")
    with pytest.raises(ValueError, match="line 3 is 'b'"):
        read_pairs(tmp_path / "pairs", WORDS)


def test_html_shows_what_the_text_does_and_escapes_it() -> None:
    table = Table(("network", "top-1 (%)"), [("<b>&", 71.25), ("RS-Net", None)], "4 < 5 images")
    assert table.as_html() == (
        "<table><thead><tr><th>network</th><th>top-1 (%)</th></tr></thead><tbody>"
        "<tr><td>&lt;b&gt;&amp;</td><td>71.25</td></tr><tr><td>RS-Net</td><td></td></tr></tbody></table>"
        "<p>4 &lt; 5 images</p>"
    )
    assert as_html_block("a < b\n c") == "<pre>a &lt; b\n c</pre>"


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\rb", "a\u202eb", "a\ud800b", "a\x00b", "a\nb", "a\x9bb"])
def test_what_moves_a_cursor_is_escaped(text: str) -> None:
    table = Table((text,), [(text,)])
    for shown in (printable(text), plain([text]), plain({"key": text}), *table.as_text().splitlines()[1:]):
        assert shown.isprintable()
        assert shown.encode()


def test_a_cell_of_markdown_stays_a_cell() -> None:
    table = Table(("name",), [("a|b\n<script>[x](y)",)]).as_markdown()
    assert table.splitlines()[2:] == [r"| a\|b\\n&lt;script>[x]\(y) |"]
