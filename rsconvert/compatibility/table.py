"""The table of models: a row for each architecture, as it was measured, and the totals over them."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from rsconvert.errors import DataError

__all__ = ["FIVE", "Row", "Table", "read_table", "totals", "write_table"]

FIVE = (224, 192, 160, 128, 96)
_TRAINED = {True: "same", False: "different", None: "impossible"}
_PARTS = ("create", "convert", "forwards", "batches", "training")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of one architecture; one without BatchNorm has no more than its name and size.

    Attributes:
        family: the library's file that defines it, such as ``resnet`` or ``torchvision/resnet``.
        resolutions: in pixels; each path there was compared with the source on real tensors and is equal, bit for bit.
        refused: those of the five at which the source itself does not run, with the operation that fails.
        tables: how many position tables are private too, by the last part of their names.
        batches: whether the paths of a network of three sets equal the source on batches of two; empty if not run.
        training: one step in train mode: its ``resolution``; whether it is the ``same`` as the source's, None if the
            source can't take one; in ``words`` what was found.
        seconds: to create the model, to convert it, for the forwards of examination and proof.
        error: why nothing was converted.

    The other fields are those of ``ConversionReport``.
    """

    name: str
    family: str
    parameters: int
    batchnorms: int = 0
    found: Mapping[str, int] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    resolutions: tuple[int, ...] = ()
    different: tuple[int, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    built_with: str | None = None
    tables: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    batches: Mapping[str, bool] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None

    @property
    def size_class(self) -> str:
        """How the model takes the five resolutions.

        A: as it is. B: built again for each. C: built again, with tables of its own for each. D: at some of them or
        none. ``none``: it has no BatchNorm. ``failed``: it could not be converted at all.
        """
        if self.error is None and not self.batchnorms:
            return "none"
        if self.error is not None or self.different or not self.resolutions:
            return "failed"
        if not set(FIVE) <= set(self.resolutions):
            return "D"
        return "C" if self.tables else "B" if self.built_with else "A"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Row":
        """Return the row of plain data."""
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data without what is empty."""
        required = ("name", "family", "parameters")
        return {key: value for key, value in asdict(self).items() if key in required or value not in (None, 0, (), {})}


@dataclass(frozen=True)
class Table:
    """The rows by name, and what they were measured with: versions, command, hardware, seconds by the clock."""

    versions: Mapping[str, str]
    command: str
    hardware: str
    seconds: float
    rows: tuple[Row, ...]


def read_table(path: Path | None = None) -> Table:
    """Return the table of a file; None means the one shipped with the package.

    Raises:
        DataError: the file is missing or no such table.
    """
    source = files("rsconvert.compatibility").joinpath("table.json") if path is None else path
    try:
        values = json.loads(source.read_text(encoding="utf-8"))
        rows = tuple(Row.from_dict(row) for row in values.pop("rows"))
        return Table(**values, rows=rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{source} can't be read as the table of models ({error}); the file that benchmarks/sweep.py writes is "
            "needed. Install the package again, or run the sweep."
        ) from error


def write_table(table: Table, path: Path) -> None:
    """Write a table with a line for each row, so that two versions can be compared line by line."""
    head = {f.name: getattr(table, f.name) for f in fields(Table) if f.name != "rows"}
    rows = ",\n".join(json.dumps(row.to_dict()) for row in sorted(table.rows, key=lambda row: row.name))
    path.write_text(f'{json.dumps(head)[:-1]}, "rows": [\n{rows}\n]}}\n', encoding="utf-8")


def totals(rows: tuple[Row, ...]) -> dict[str, Any]:
    """Return counts over rows, and sums of seconds."""
    bearing = [row for row in rows if row.batchnorms]
    classes = Counter(row.size_class for row in rows)
    trained = Counter(_TRAINED[row.training["same"]] for row in bearing if row.training)
    batches = [row for row in bearing if row.batches]
    return {
        "models": len(rows),
        "with_batchnorm": len(bearing),
        "converted": len(bearing) - classes["failed"],
        "classes": {name: classes[name] for name in ("A", "B", "C", "D", "failed", "none")},
        "batchnorms": sum(row.batchnorms for row in bearing),
        "found": {way: sum(row.found.get(way, 0) for row in bearing) for way in ("graph", "leaf", "tree")},
        "unseen": sum(len(row.unseen) for row in bearing),
        "paths": {"exact": sum(len(row.resolutions) for row in bearing),
                  "different": sum(len(row.different) for row in bearing)},
        "refused": sum(len(row.refused) for row in bearing),
        "batches": {"models": len(batches), "exact": sum(all(row.batches.values()) for row in batches)},
        "training": {name: trained[name] for name in _TRAINED.values()},
        "seconds": {part: round(sum(row.seconds.get(part, 0.0) for row in bearing), 1) for part in _PARTS},
    }  # fmt: skip
