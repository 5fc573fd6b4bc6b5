"""An evaluation as a table: text for people, Markdown, CSV for other programs."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from rsconvert.evaluation.results import Accuracy, Evaluation
from rsconvert.evaluation.sizes import size_name

__all__ = ["as_csv", "as_markdown", "as_text"]

_COLUMNS = (
    "network", "resolution", "interpolated", "count", "top1", "top1_low", "top1_high", "top5", "calibration_error",
    "multiply_adds", "only_network", "only_baseline", "p_value",
)  # fmt: skip


def as_text(result: Evaluation) -> str:
    """Return one line per path of the network, the baselines' top-1 beside it, for a terminal."""
    cells = [_titles(result), *_lines(result)]
    widths = [max(len(row[i]) for row in cells) + 2 for i in range(len(cells[0]) - 1)]
    lines = ["".join(cell.rjust(w) for cell, w in zip(row, widths, strict=False)) + "  " + row[-1] for row in cells]
    lines = [line.rstrip() for line in [*lines, f"{result.count} images", *_legend(result)]]
    return "\n".join([*lines, *_class_lines(result)])


def as_markdown(result: Evaluation) -> str:
    """Return the table of `as_text` in Markdown."""
    titles, *rows = [_titles(result), *_lines(result)]
    lines = [titles, ["---"] * len(titles), *rows]
    table = "\n".join(f"| {' | '.join(row)} |".replace("  ", " ") for row in lines)
    return "\n\n".join([table, " ".join([f"{result.count} images.", *_legend(result)]), *_class_lines(result, True)])


def as_csv(result: Evaluation) -> str:
    """Return one row per network and resolution, all figures in full, and one per class if they were asked for."""
    text = io.StringIO()
    classes = [f"top1 {name}" for name in result.classes or ()]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *classes])
    for name, one in {"network": result, **result.baselines}.items():
        rows: dict[str, Accuracy | None] = {size_name(size): row for size, row in one.resolutions.items()}
        for size, row in {**rows, "ensemble": one.ensemble}.items():
            if row is not None:
                writer.writerow(_csv_row(name, size, row, result.count))
    return text.getvalue()


def _csv_row(name: str, size: str, row: Accuracy, count: int) -> list[Any]:
    low, high = row.top1_interval or (None, None)
    paired = (None,) * 3 if row.paired is None else tuple(vars(row.paired).values())
    facts = [name, size, row.interpolated, count, row.top1, low, high, row.top5, row.calibration_error]
    return [*facts, row.multiply_adds, *paired, *(row.per_class or ())]


def _titles(result: Evaluation) -> list[str]:
    own = ["resolution", "top-1 (%)", "95 %", "top-5 (%)", "calibration error (%)", "multiply-adds (M)"]
    return [*own, *result.baselines, ""]


def _lines(result: Evaluation) -> Iterator[list[str]]:
    """Yield a row of cells per path: the network's figures, each baseline's top-1, a note."""
    for size, row in result.resolutions.items():
        beside = [_beside(other.resolutions.get(size)) for other in result.baselines.values()]
        yield [size_name(size), *_own(row), *beside, "interpolated" if row.interpolated else ""]
    beside = [_beside(other.ensemble) for other in result.baselines.values()]
    if result.ensemble is not None:
        yield ["ensemble", *_own(result.ensemble), *beside, ""]


def _own(row: Accuracy) -> list[str]:
    interval = "" if row.top1_interval is None else "{:.1f}-{:.1f}".format(*row.top1_interval)
    error = "" if row.calibration_error is None else f"{row.calibration_error:.1f}"
    cost = "" if row.multiply_adds is None else f"{row.multiply_adds / 1e6:.1f}"
    return [f"{row.top1:.2f}", interval, f"{row.top5:.2f}", error, cost]


def _beside(row: Accuracy | None) -> str:
    """Return a baseline's top-1, starred where a gap as wide has less than 5 % chance between equals."""
    if row is None:
        return ""
    return f"{row.top1:.2f}" + ("*" if row.paired is not None and row.paired.p_value < 0.05 else "")


def _legend(result: Evaluation) -> list[str]:
    told = "Of baselines the top-1; *: it differs from the network's on the same images (McNemar, p < 0.05)."
    return [told] if result.baselines else []


def _class_lines(result: Evaluation, markdown: bool = False) -> list[str]:
    """Return the top-1 of each class, a line or row each."""
    if result.classes is None:
        return []
    columns = {size_name(size): row.per_class or () for size, row in result.resolutions.items()}
    rows = [["class", *columns]]
    rows += [[name, *(_percent(column[i]) for column in columns.values())] for i, name in enumerate(result.classes)]
    if markdown:
        rows.insert(1, ["---"] * len(rows[0]))
        return ["\n".join(f"| {' | '.join(row)} |" for row in rows)]
    width = max(len(row[0]) for row in rows) + 2
    return ["", *(row[0].ljust(width) + "".join(cell.rjust(8) for cell in row[1:]) for row in rows)]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
