"""What a file holds, as a person reads it: a fact a line, long ones shortened, tables for what has rows."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rsconvert.models import ImageArgument
from rsconvert.text import Table, plain, printable

__all__ = ["inspection_text"]

_WIDTH = 110
_SHOWN = 8  # entries of a long list
_TABLES = ("crop_pct", "importance_scores", "bytes_by_part", "costs")
_PARTS = {
    "codes": "codes of quantized weights",
    "bases": "bases of quantized values",
    "native_batchnorm": "BatchNorms of the native resolution",
    "other_sets": "private tensors of the other resolutions",
    "float": "other tensors",
}
_COSTS = {
    "form": "form",
    "resolution": "resolution",
    "batch_size": "batch",
    "multiply_adds": "multiply-adds (M)",
    "latency_ms": "median (ms)",
    "top1": "top-1 (%)",
    "miou": "mIoU (%)",
    "amp": "amp",
}


def inspection_text(facts: Mapping[str, Any]) -> str:
    """Return what `describe` found as lines of at most 110 characters, where no word is longer.

    >>> print(inspection_text({"architecture": "resnet50", "resolutions": [224, 160], "bytes": 1234567}))
    architecture: resnet50
    resolutions: 224, 160
    bytes: 1,234,567
    """
    single = {key: value for key, value in facts.items() if key not in _TABLES}
    lines = [line for key, value in single.items() for line in _lines(printable(key), value)]
    return "\n\n".join(["\n".join(lines), *_by_part(facts), *_by_resolution(facts), *_costs(facts.get("costs", {}))])


def _lines(key: str, value: Any) -> list[str]:
    if key == "images":  # what `read_metadata` has checked
        images = [ImageArgument.from_dict(image) for image in value]
        return _wrapped(key, [f"{image.label} {image.layout}" for image in images])
    if isinstance(value, Mapping) and len(value) > 3:
        shown = [*value.items()] if len(value) <= 4 * _SHOWN else [*value.items()][:_SHOWN]
        lines = [f"{key}:" if len(shown) == len(value) else f"{key}: {len(value):,}, the first of them"]
        return lines + [line for name, item in shown for line in _wrapped(f"  {printable(name)}", item)]
    return _wrapped(key, value)


def _wrapped(key: str, value: object) -> list[str]:
    return textwrap.wrap(f"{key}: {_short(value)}", _WIDTH, subsequent_indent="    ", break_long_words=False)


def _short(value: object) -> str:
    """Return a value as a person writes it; of a long list the first entries and their number."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 2 * _SHOWN:
        return f"{plain(value[:_SHOWN])}, … ({len(value):,} in all)"
    return plain(value)


def _by_part(facts: Mapping[str, Any]) -> list[str]:
    parts = facts.get("bytes_by_part", {})
    rows = [(_PARTS.get(part, printable(part)), f"{size:,}") for part, size in parts.items()]
    return [Table(("part", "bytes"), rows).as_text()] if rows else []


def _by_resolution(facts: Mapping[str, Any]) -> list[str]:
    """Return a table of what each resolution has of its own."""
    sides = facts.get("resolutions", [])
    scores, crops = facts.get("importance_scores", {}), facts.get("crop_pct")
    if not scores:
        return []
    shares = crops if isinstance(crops, Sequence) else [crops] * len(sides)
    rows = [(r, plain(share), f"{scores[str(r)]:.4f}") for r, share in zip(sides, shares, strict=True)]
    return [Table(("resolution", "crop_pct", "importance score"), rows).as_text()]


def _costs(costs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    return [f"costs on {printable(machine)}\n{_table(rows)}" for machine, rows in costs.items()]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    known = [key for key in _COSTS if any(row.get(key) is not None for row in rows)]
    cells = [[_millions(row[key]) if key == "multiply_adds" else row.get(key) for key in known] for row in rows]
    return Table([_COSTS[key] for key in known], cells).as_text()


def _millions(number: int) -> str:
    return f"{number / 1e6:.1f}"
