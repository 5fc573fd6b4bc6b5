"""Facts and pictures → one HTML page, by the templates beside this file; the page fetches nothing."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rsconvert.evaluation import NETWORK
from rsconvert.study.report.charts import Chart, Series, draw

__all__ = ["OWN_NAME", "render"]

OWN_NAME = "this network"
"""What the page calls the network among its baselines."""


def render(facts: Mapping[str, Any], pictures: Sequence[Mapping[str, str]]) -> str:
    """Return the page.

    Args:
        facts: as ``write_report`` returns them.
        pictures: data URIs of each example by the name of its size.
    """
    pages = Environment(loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined)
    pages.trim_blocks = pages.lstrip_blocks = True
    pages.filters |= {"number": _number, "percent": _percent}
    # Markup: the script is ours, and an escaped one would not run.
    script = Markup(pages.get_template("slider.js").render())
    plain = _finite(facts)
    return pages.get_template("page.html").render(
        facts=plain,
        title=plain["network"]["name"].rpartition("/")[2],
        pictures=pictures,
        accuracy=_accuracy_charts(plain),
        training=_training_charts(plain["epochs"] or []),
        rows=_rows(plain),
        latencies=[_latencies(machine, rows) for machine, rows in plain["network"]["costs"].items()],
        own=NETWORK,
        own_name=OWN_NAME,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _rows(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the row of each size with what follows from several of its figures."""
    rows = facts["evaluation"]["resolutions"]
    native = rows[facts["sizes"][0]]["multiply_adds"]
    return {
        size: {
            **rows[size],
            "share": 100 * rows[size]["multiply_adds"] / native,
            "state": _state(_resolution(size), facts["network"]["resolutions"]),
            "importance": facts["network"]["importance"].get(size),
        }
        for size in facts["sizes"]
    }


def _latencies(machine: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the latencies that were measured on a machine: for each resolution a cell per form and batch size."""
    columns = list(dict.fromkeys((row["form"], row["batch_size"]) for row in rows))
    cells = {(row["resolution"], row["form"], row["batch_size"]): row["latency_ms"] for row in rows}
    sides = sorted({row["resolution"] for row in rows}, reverse=True)
    return {
        "machine": machine,
        "columns": [f"{form}, batch {batch} (ms)" for form, batch in columns],
        "cells": {str(side): [cells.get((side, *column)) for column in columns] for side in sides},
    }


def _state(resolution: int, trained: Sequence[int]) -> str:
    """Say where the BN set of a resolution comes from."""
    if resolution in trained:
        return "trained"
    above, below = [r for r in trained if r > resolution], [r for r in trained if r < resolution]
    if above and below:
        return f"between {min(above)} and {max(below)}"
    return f"as at {trained[0] if below else trained[-1]}"


def _resolution(size: str) -> int:
    """Return the resolution that a size's name stands for."""
    height, _, width = size.partition("x")
    return round(math.sqrt(int(height) * int(width or height)))


def _accuracy_charts(facts: Mapping[str, Any]) -> list[Chart]:
    networks = {OWN_NAME: facts["evaluation"], **facts["evaluation"].get("baselines", {})}
    sizes = facts["sizes"][::-1]
    trained = [r for r in facts["network"]["resolutions"] if str(r) in sizes]
    ways = (
        ("Accuracy over resolution", "resolution (pixels)", lambda row, size: _resolution(size), trained or None),
        ("Accuracy over cost", "multiply-adds (millions)", lambda row, size: row["multiply_adds"] / 1e6, None),
    )
    return [
        draw(
            [_series(name, network["resolutions"], sizes, x) for name, network in networks.items()],
            title=title,
            x_label=label,
            y_label="top-1 (%)",
            x_ticks=ticks,
        )
        for title, label, x, ticks in ways
    ]


def _series(name: str, rows: Mapping[str, Any], sizes: Sequence[str], x: Any) -> Series:
    order = sorted(sizes, key=lambda size: float(x(rows[size], size)))
    return Series(
        name,
        [(x(rows[size], size), rows[size]["top1"]) for size in order],
        [rows[size]["top1_interval"] for size in order],
        order,
        [rows[size]["interpolated"] for size in order],
    )


def _training_charts(epochs: Sequence[Mapping[str, float]]) -> list[Chart]:
    """Return the charts of a run's table: losses, accuracies, scores, each as far as the table has them."""
    ways = (
        ("Loss", "mean of the epoch", ("loss", "classification", "ensemble", "distillation"), ""),
        ("Top-1 after each epoch", "top-1 (%)", (), "top1_"),
        ("Importance scores", "softmax(alpha)", (), "score_"),
    )
    charts = []
    for title, label, names, start in ways:
        keys = [key for key in (epochs[0] if epochs else ()) if key in names or (start and key.startswith(start))]
        curves = [
            Series(key.removeprefix(start), [(row["epoch"], row[key]) for row in epochs if key in row]) for key in keys
        ]
        if curves:
            charts.append(draw(curves, title=title, x_label="epoch", y_label=label, whole=True))
    return charts


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f} %"


def _finite(value: Any) -> Any:
    """Return facts in which what is no number is null, as JSON knows it."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
