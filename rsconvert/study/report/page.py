"""A network's report: predictions for all images, shown on one HTML page that fetches nothing."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from torch import nn

from rsconvert.checkpoint import replacing
from rsconvert.data import Samples, Size, open_split, resolution_of
from rsconvert.errors import CheckpointError
from rsconvert.evaluation import NETWORK, check_classifies, default_resolutions, predict, summarize, with_baselines
from rsconvert.study.curves import Chart, Curve, Point, accuracy_charts
from rsconvert.study.report.charts import Drawing
from rsconvert.study.report.facts import (
    answer_facts,
    draw_images,
    drawn_facts,
    encoded_views,
    file_facts,
    made_facts,
    network_facts,
    read_class_names,
    short_name,
)
from rsconvert.surgery import SwitchableModel
from rsconvert.training import read_summary

__all__ = ["OWN_NAME", "render", "write_report"]

OWN_NAME = "this network"
"""The name of the network on the page, where baselines have theirs."""


def write_report(
    net: SwitchableModel,
    data: str | Path | Samples,
    path: str | Path,
    resolutions: Sequence[Size] | None = None,
    *,
    baselines: Mapping[str, nn.Module] | None = None,
    examples: int = 24,
    seed: int = 0,
    class_names: str | Path | None = None,
    origin: str | Path | None = None,
    command: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write one HTML file about a network, replacing one at ``path``: accuracy, cost, images with predictions.

    The figures are those of ``evaluate``, with its options; they are returned, and in the file as JSON, id ``facts``.

    Args:
        resolutions: None takes the trained ones and, where the network works there, those midway between.
        baselines: other networks by name, see ``evaluate``.
        examples: how many images to show, drawn from all by ``seed``.
        class_names: a file of names for people, see `read_class_names`.
        origin: the file of the network, whose size and date are shown, or the folder of its run, whose curves are too.
        command: the command line that the page shows.
    Raises:
        RSConvertError: as ``evaluate``; images can't be read by index; a file can't be read or written.
    """
    _check(net, Path(path))
    samples = _opened(net, data, options)
    drawn = draw_images(examples, len(samples), seed)
    shown = samples.subset(drawn) if drawn else samples
    labels = None if class_names is None else read_class_names(class_names, samples.classes)
    known = _known(origin)
    sizes = default_resolutions(net) if resolutions is None else resolutions
    found = predict(with_baselines(net, baselines), samples, sizes, **options)
    evaluation = summarize(found, per_class=True)
    facts = {
        "made": made_facts(command, net.alpha.device),
        **known,
        "data": str(data) if isinstance(data, str | Path) else "samples",
        "network": network_facts(net),
        **answer_facts(found, evaluation, labels),
        "examples": {"seed": seed, "images": drawn_facts(found, drawn, [short_name(samples, i) for i in drawn])},
    }
    charts = accuracy_charts({OWN_NAME: evaluation, **evaluation.baselines})
    text = render(facts, charts, list(encoded_views(found, shown, range(len(drawn)))))
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return facts


def _opened(net: SwitchableModel, data: str | Path | Samples, options: Mapping[str, Any]) -> Samples:
    samples = open_split(str(data), "val", root=options.get("data_root")) if isinstance(data, str | Path) else data
    return samples if options.get("class_map") else samples.as_classes(net.source.class_names)


def _check(net: SwitchableModel, path: Path) -> None:
    check_classifies(net, "the report")
    """Refuse before the work what else would fail after it."""
    if not path.absolute().parent.is_dir():
        raise CheckpointError(f"{path} can't be written; a name in a folder that exists is needed.")


def _known(origin: str | Path | None) -> dict[str, Any]:
    """Return what is known of the network's file, and of its run."""
    if origin is None:
        return {"checkpoint": None, "epochs": None}
    return {"checkpoint": file_facts(origin), "epochs": read_summary(origin)}


def render(facts: Mapping[str, Any], accuracy: Sequence[Chart], pictures: Sequence[Mapping[str, str]]) -> str:
    """Return the page, by the templates next to this file.

    Args:
        facts: as ``write_report`` returns them.
        accuracy: charts of the network and its baselines.
        pictures: data URIs of each example by the name of its size.
    """
    pages = Environment(loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined)
    pages.trim_blocks = pages.lstrip_blocks = True
    pages.filters |= {"number": _number, "percent": _percent}
    # Markup: the script is ours, and an escaped one would not run.
    script = Markup(pages.get_template("slider.js").render())
    plain = json.loads(json.dumps(facts), parse_constant=lambda _: None)  # NaN is null
    return pages.get_template("page.html").render(
        facts=plain,
        title=plain["network"]["name"].rpartition("/")[2],
        pictures=pictures,
        accuracy=[Drawing(chart) for chart in accuracy],
        training=[Drawing(chart) for chart in _training_charts(plain["epochs"] or [])],
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
            "state": _state(size, facts["network"]["resolutions"]),
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


def _state(size: str, trained: Sequence[int]) -> str:
    """Return where the BN set of a size comes from."""
    height, _, width = size.partition("x")
    resolution = resolution_of((int(height), int(width or height)))
    if resolution in trained:
        return "trained"
    above, below = [r for r in trained if r > resolution], [r for r in trained if r < resolution]
    if above and below:
        return f"between {min(above)} and {max(below)}"
    return f"as at {trained[0] if below else trained[-1]}"


def _training_charts(epochs: Sequence[Mapping[str, float]]) -> list[Chart]:
    """Return the charts of a run's table: losses, accuracies, scores, each as far as the table has them."""
    ways = (
        ("Loss (sum over the resolutions)", "mean of the epoch (nats)", "loss|classification|ensemble|distillation"),
        ("Top-1 after each epoch", "top-1 (%)", "top1_"),
        ("Importance scores", "softmax(alpha)", "score_"),
    )
    charts = []
    for title, label, pattern in ways:
        curves: list[Curve] = []
        for key in epochs[0] if epochs else ():
            if re.match(pattern, key):
                points = tuple(Point(row["epoch"], row[key]) for row in epochs if key in row)
                curves.append(Curve(key.partition("_")[2] or key, points, len(curves)))
        if curves:
            charts.append(Chart(title, "epoch", label, tuple(curves)))
    return charts


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f} %"
