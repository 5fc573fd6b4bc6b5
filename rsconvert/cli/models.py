"""The command models: what can be converted, from the shipped table or measured at once."""

import difflib
import fnmatch
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from rsconvert.cli.options import json_option
from rsconvert.cli.printing import print_result
from rsconvert.errors import ConfigError, UnsupportedModelError

if TYPE_CHECKING:
    from rsconvert.compatibility import Row, Table

__all__ = ["models"]

_CLASSES = ["A", "B", "C", "D", "none"]


@click.command()
@click.argument("pattern", default="*")
@click.option("--check", metavar="MODEL", help="Measure this model here and now instead of reading the table.")
@click.option("--class", "size_class", type=click.Choice(_CLASSES), help="Only the models of this class.")
@json_option
def models(pattern: str, check: str | None, size_class: str | None, as_json: bool) -> None:
    """List the models of timm and torchvision with what a conversion does to them; PATTERN is a glob such as 'resnet*'.

    Class A takes the resolutions 224, 192, 160, 128, 96 as it is; B is built again for each of them; C too, with
    position tables of its own for each; D works at some of them or at others alone; none has no BatchNorm.
    """
    if check is None:
        _list(pattern, size_class, as_json)
        return
    if pattern != "*" or size_class is not None:
        raise ConfigError(
            f"check measures {check} alone, so a pattern and --class have no effect. Drop them, or drop --check."
        )
    from rsconvert.compatibility.check import measure

    row = measure(check, in_batches=True)
    print_result({"class": row.size_class, **asdict(row)}, as_json, "\n".join(_details(row)))


def _list(pattern: str, size_class: str | None, as_json: bool) -> None:
    from rsconvert.compatibility import read_table, totals

    table = read_table()
    rows = [row for row in table.rows if fnmatch.fnmatchcase(row.name, pattern)]
    if not rows:
        raise UnsupportedModelError(_unknown(pattern, table))
    rows = [row for row in rows if size_class in (None, row.size_class)]
    facts = {
        "versions": table.versions,
        "totals": totals(tuple(rows)),
        "models": [{"class": row.size_class, **row.to_dict()} for row in rows],
    }
    print_result(facts, as_json, "\n".join([*map(_line, rows), "", _summary(rows, table)]))


def _unknown(pattern: str, table: "Table") -> str:
    near = difflib.get_close_matches(
        pattern.replace("*", "").partition(".")[0].lower(), [row.name for row in table.rows], n=3
    )
    return f"model {pattern} is not in the table of {len(table.rows)} models; a glob of their names is accepted. " + (
        f"Did you mean {', '.join(near)}?" if near else "See rsconvert models, or measure another one by --check."
    )


def _line(row: "Row") -> str:
    facts = f"{row.name:44s} {row.size_class:6s} {row.parameters / 1e6:7.1f} M"
    if row.size_class == "none":
        return f"{facts}  no BatchNorm"
    if row.size_class == "failed":
        return f"{facts}  {row.error or 'paths differ'}"
    return f"{facts} {row.batchnorms:4d} BatchNorms  {' '.join(map(str, row.resolutions))}"


def _summary(rows: "list[Row]", table: "Table") -> str:
    able = sum(1 for row in rows if row.size_class in ("A", "B", "C"))
    versions = ", ".join(f"{name} {version}" for name, version in table.versions.items())
    return f"{len(rows)} models, {able} of them at all five resolutions; measured with {versions}"


def _details(row: "Row") -> list[str]:
    """Return everything about a model that was just measured."""
    lines = [_line(row)]
    if row.size_class in ("none", "failed"):
        return lines
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
    return lines
