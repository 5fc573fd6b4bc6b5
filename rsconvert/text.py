"""Text for people and programs: tables (aligned, Markdown, CSV), values in words, JSON, files NAME VALUE."""

import csv
import html
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Table", "as_html_block", "parse_json", "plain", "printable", "read_json", "read_pairs"]

_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]\d+| ?%|\*| ± [\d.]+)?|[\d.]+-[\d.]+|-?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # of which the csv module ends a row at some
_DEEPEST, _LARGEST = 64, 2**26  # levels of JSON, bytes of a file of it


@dataclass(frozen=True)
class Table:
    """Rows of cells under titles, with a note below; floats are rounded in text and Markdown, in full in CSV."""

    titles: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""

    def filled(self) -> "Table":
        """Return the table without the columns in which no row has anything."""
        used = [i for i in range(len(self.titles)) if any(row[i] not in (None, "") for row in self.rows)]
        rows = [[row[i] for i in used] for row in self.rows]
        return Table([self.titles[i] for i in used], rows, self.note)

    def as_text(self) -> str:
        """Return aligned columns for a terminal: numbers to the right, words to the left.

        >>> print(Table(("network", "top-1 (%)"), [("I-224", 71.25), ("RS-Net", None)], "4 images").as_text())
        network  top-1 (%)
        I-224        71.25
        RS-Net
        4 images
        """
        columns = [_aligned(column) for column in zip(*self._cells(), strict=True)]
        lines = ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def as_markdown(self) -> str:
        """Return a table of Markdown, the note as a paragraph below it."""
        titles, *rows = [[_markdown(cell) for cell in line] for line in self._cells()]
        table = "\n".join(f"| {' | '.join(line)} |" for line in [titles, ["---"] * len(titles), *rows])
        return f"{table}\n\n{self.note}" if self.note else table

    def as_csv(self) -> str:
        """Return the rows as CSV, without the note; a text that a spreadsheet would compute begins with a '.

        >>> print(Table(("name", "share"), [("=1+1", -0.5)]).as_csv(), end="")
        name,share
        '=1+1,-0.5
        """
        text = io.StringIO()
        rows = ([_no_formula(cell) for cell in row] for row in [self.titles, *self.rows])
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()

    def as_html(self) -> str:
        """Return a table of HTML, as notebooks show it, the note as a paragraph below it."""
        titles, *rows = self._cells()
        head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
        lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"

    def _cells(self) -> list[list[str]]:
        return [list(self.titles), *([_cell(value) for value in row] for row in self.rows)]


def printable(text: str) -> str:
    """Return text of one line in which nothing moves a cursor, hides, or turns the direction: it is escaped.

    >>> printable("a\\x1b[31mb\\n")
    'a\\\\x1b[31mb\\\\n'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _no_formula(cell: object) -> object:
    """Return a cell that a spreadsheet shows as it is: a name out of a file could be a formula, even a command."""
    if not isinstance(cell, str):
        return cell
    text = _CONTROL.sub(lambda found: printable(found[0]), cell)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not _NUMBER.fullmatch(text) else text


def _markdown(cell: str) -> str:
    """Return a cell that neither ends itself nor begins a tag or a link."""
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("](", "]\\(")


def as_html_block(text: str) -> str:
    """Return text of several lines as HTML that keeps its columns."""
    return f"<pre>{html.escape(text)}</pre>"


def plain(value: object) -> str:
    """Return a value as a person would write it.

    >>> plain({"mean": (0.5, 0.25), "crop": 1.0})
    'mean 0.5, 0.25, crop 1'
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(str(key))} {plain(item)}" for key, item in value.items())
    return ", ".join(map(plain, value)) if isinstance(value, (list, tuple)) else printable(str(value))


def parse_json(text: str | bytes) -> Any:
    """Return what JSON says; no level or letter of it breaks what prints or writes it later.

    Raises:
        ValueError: it is broken, nested in more than 64 levels, or holds half of a surrogate pair.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level, depth = [value], 0
    while level := [inner for outer in level for inner in _inside(outer)]:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"it is nested in more than {_DEEPEST} levels")
    json.dumps(value, ensure_ascii=False).encode()
    return value


def read_json(path: str | Path) -> Any:
    """Return what a JSON file of at most 64 MiB says.

    Raises:
        OSError: the file can't be read.
        ValueError: as `parse_json`, or it is larger.
    """
    if (size := Path(path).stat().st_size) > _LARGEST:
        raise ValueError(f"it has {size} bytes, and at most {_LARGEST} are read")
    return parse_json(Path(path).read_text(encoding="utf-8"))


def _inside(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def read_pairs(path: str | Path, line: str, read: Callable[[str], object] = str) -> list[tuple[str, Any]]:
    """Return names and values of a file: one JSON object, or a line for each pair; a name may come twice.

    Args:
        line: a regular expression of two groups, name and value, for a line without the blanks around it.
        read: gives the value that a line's text means, as JSON has it.
    Raises:
        OSError: the file can't be read.
        ValueError: it is broken.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("{"):
        # As pairs, for a dict would hide a name that comes twice; an object inside stays a list.
        parse_json(text)
        pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
        return pairs
    lines = [(number, words) for number, words in enumerate(map(str.strip, text.splitlines()), 1) if words]
    found = [(number, words, re.fullmatch(line, words)) for number, words in lines]
    if broken := [f"line {number} is {words!r}" for number, words, match in found if match is None]:
        raise ValueError(broken[0])
    return [(match[1], read(match[2])) for _, _, match in found if match]


def _aligned(column: Sequence[str]) -> list[str]:
    width = max(map(len, column))
    numbers = all(_NUMBER.fullmatch(cell) for cell in column[1:])
    return [cell.rjust(width) if numbers else cell.ljust(width) for cell in column]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return "" if value is None else printable(str(value))
