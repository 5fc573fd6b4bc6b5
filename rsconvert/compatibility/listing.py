"""Rows of the table as people read them: chosen by a pattern and a class, a line for each; everything about one."""

import difflib
import fnmatch
from dataclasses import asdict, dataclass
from typing import Any

from rsconvert.compatibility.table import Row, Table, read_table, totals
from rsconvert.errors import UnsupportedModelError
from rsconvert.text import Table as Text

__all__ = ["Listing", "details", "list_models"]


@dataclass(frozen=True)
class Listing:
    """The rows that were asked for, and the table that they are from."""

    rows: tuple[Row, ...]
    table: Table

    def to_dict(self) -> dict[str, Any]:
        """Return the rows as plain data, with their totals."""
        rows = [{"class": row.size_class, **row.to_dict()} for row in self.rows]
        return {"versions": self.table.versions, "totals": totals(self.rows), "models": rows}

    def __str__(self) -> str:
        able = sum(1 for row in self.rows if row.size_class in ("A", "B", "C"))
        versions = ", ".join(f"{name} {version}" for name, version in self.table.versions.items())
        count = f"{len(self.rows)} models, {able} of them at all five resolutions; measured with {versions}"
        titles = ("model", "class", "parameters (M)", "BatchNorms", "resolutions")
        return Text(titles, [_cells(row) for row in self.rows], f"\n{count}").as_text()


def list_models(pattern: str, size_class: str | None = None) -> Listing:
    """Return the models of the shipped table whose names match a glob, all or those of one class.

    Raises:
        UnsupportedModelError: no name matches.
    """
    table = read_table()
    rows = [row for row in table.rows if fnmatch.fnmatchcase(row.name, pattern)]
    if not rows:
        plain = pattern.replace("*", "").partition(".")[0].lower()
        near = difflib.get_close_matches(plain, [row.name for row in table.rows], n=3)
        remedy = f"Did you mean {', '.join(near)}?" if near else "See rsconvert models, or measure another by --check."
        raise UnsupportedModelError(
            f"model {pattern} is not in the table of {len(table.rows)} models; a glob of their names is accepted. "
            f"{remedy}"
        )
    return Listing(tuple(row for row in rows if size_class in (None, row.size_class)), table)


def details(row: Row) -> tuple[dict[str, Any], str]:
    """Return everything about a model that was just measured, as plain data and as text."""
    facts, lines = {"class": row.size_class, **asdict(row)}, [_line(row)]
    if row.size_class in ("none", "failed"):
        return facts, lines[0]
    lines.append("found by " + ", ".join(f"{way} {n}" for way, n in row.found.items()))
    lines.append("exact in eval mode at " + ", ".join(map(str, row.resolutions)))
    batches = ", ".join(f"{r} {'exact' if same else 'DIFFERENT'}" for r, same in row.batches.items())
    lines.append(f"on batches of two: {batches}")
    if row.built_with:
        lines.append(f"built again for each resolution by {row.built_with}")
    lines += [f"private tables: {count} {name}" for name, count in row.tables.items()]
    lines += [f"refused: {resolution}: {reason}" for resolution, reason in row.refused.items()]
    lines += [f"ran unseen by the graph: {name}" for name in row.unseen]
    lines.append(f"a training step at {row.training['resolution']}: {row.training['words']}")
    lines += [f"warning: {warning}" for warning in row.warnings]
    lines.append("seconds: " + ", ".join(f"{part} {seconds:.2f}" for part, seconds in row.seconds.items()))
    return facts, "\n".join(lines)


def _line(row: Row) -> str:
    """Return a model's facts as a line without titles."""
    name, size_class, millions, batchnorms, words = _cells(row)
    count = "" if batchnorms is None else f"  {batchnorms} BatchNorms"
    return f"{name}  {size_class}  {millions} M{count}  {words}"


def _cells(row: Row) -> tuple[str, str, str, int | None, str]:
    facts = row.name, row.size_class, f"{row.parameters / 1e6:.1f}"
    if row.size_class == "none":
        return *facts, None, "no BatchNorm"
    if row.size_class == "failed":
        return *facts, None, row.error or "paths differ"
    return *facts, row.batchnorms, " ".join(map(str, row.resolutions))
