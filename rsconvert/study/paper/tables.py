"""A table of an analysis: text for people, Markdown, CSV for other programs."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """Rows of cells under titles, with a note below; numbers are rounded in text, in full in CSV."""

    titles: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""

    def as_text(self) -> str:
        """Return aligned columns for a terminal.

        >>> print(Table(("resolution", "top-1 (%)"), [(224, 71.25)], "4 images").as_text())
          resolution  top-1 (%)
                 224      71.25
        4 images
        """
        cells = [list(self.titles), *self._cells()]
        widths = [max(len(row[i]) for row in cells) + 2 for i in range(len(self.titles))]
        lines = ["".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def as_markdown(self) -> str:
        """Return a table of Markdown."""
        lines = [list(self.titles), ["---"] * len(self.titles), *self._cells()]
        table = "\n".join(f"| {' | '.join(row)} |" for row in lines)
        return f"{table}\n\n{self.note}" if self.note else table

    def as_csv(self) -> str:
        """Return the rows as CSV, without the note."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.titles)
        writer.writerows(self.rows)
        return text.getvalue()

    def _cells(self) -> list[list[str]]:
        return [[_cell(value) for value in row] for row in self.rows]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return "" if value is None else str(value)
