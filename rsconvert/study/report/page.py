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
from rsconvert.data import Pairs, Samples, Size, Split, resolution_of, without_broken
from rsconvert.data import read_class_names as read_names_of_masks
from rsconvert.errors import CheckpointError
from rsconvert.evaluation import (
    NETWORK,
    Evaluation,
    Masks,
    Predictions,
    default_resolutions,
    doubts,
    open_labelled,
    predict,
    summarize,
    with_baselines,
)
from rsconvert.models import Metric, Task
from rsconvert.study.curves import Chart, Curve, Point, accuracy_charts
from rsconvert.study.report.charts import Drawing
from rsconvert.study.report.facts import (
    answer_facts,
    draw_images,
    draw_mistakes,
    drawn_facts,
    encoded_views,
    file_facts,
    made_facts,
    network_facts,
    read_class_names,
    short_name,
)
from rsconvert.study.report.masks import check_label_count, drawn_masks, mask_facts, overlay_views
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
    masks: Masks | None = None,
    split: Split | float = "val",
    skip_broken: int = 0,
    origin: str | Path | None = None,
    command: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write one HTML file about a network, replacing one at ``path``: accuracy, cost, images with predictions.

    The figures are those of ``evaluate``, with its options; they are returned, and in the file as JSON, id ``facts``.

    Args:
        resolutions: None takes the trained ones and, where the network works there, those midway between.
        baselines: other networks by name, see ``evaluate``.
        examples: how many images to show, drawn from all by ``seed``; of photos, half as many mistakes for its filters.
        class_names: a file of names for people, see `read_class_names`; of masks it has one a line.
        origin: the file of the network, whose size and date are shown, or the folder of its run, whose curves are too.
        command: the command line that the page shows.
    Raises:
        RSConvertError: as ``evaluate``; images can't be read by index; a file can't be read or written.
    """
    _check(Path(path))
    samples = _opened(net, data, masks, split, skip_broken, options)
    drawn = draw_images(examples, len(samples), seed)
    labels, known = _labels(class_names, samples), _known(origin)
    sizes = default_resolutions(net) if resolutions is None else resolutions
    found = predict(with_baselines(net, baselines), samples, sizes, masks=masks, **options)
    evaluation = summarize(found, per_class=True)
    mistakes = [] if found.overlaps else draw_mistakes(found, drawn, examples // 2, seed)
    figures, images, pictures = _shown(found, evaluation, labels, samples, drawn + mistakes, options)
    facts = {
        "made": made_facts(command, net.alpha.device),
        **known,
        "data": "samples" if isinstance(data, Samples) else str(data),
        "network": network_facts(net),
        **figures,
        "examples": {"seed": seed, "images": images[: len(drawn)], "mistakes": images[len(drawn) :]},
    }
    _write(render(facts, accuracy_charts({OWN_NAME: evaluation, **evaluation.baselines}), pictures), path)
    return facts


def _write(page: str, path: str | Path) -> None:
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")


def _opened(
    net: SwitchableModel,
    data: str | Path | Samples,
    masks: Masks | None,
    split: Split | float,
    skip_broken: int,
    options: Mapping[str, Any],
) -> Samples:
    root = options.get("data_root")
    samples = data if isinstance(data, Samples) else open_labelled(net, str(data), split, masks, root=root)
    (samples,) = without_broken([samples], skip_broken, workers=options.get("workers", 0))
    return samples if options.get("class_map") else samples.as_classes(net.source.class_names)


def _check(path: Path) -> None:
    """Refuse before the work what else would fail after it."""
    if not path.absolute().parent.is_dir():
        raise CheckpointError(f"{path} can't be written; a name in a folder that exists is needed.")


def _labels(class_names: str | Path | None, samples: Samples) -> Sequence[str] | None:
    """Return what to call each class, if a file says it."""
    if class_names is None:
        return None
    if isinstance(samples, Pairs):
        names = read_names_of_masks(str(class_names))
        check_label_count(names, samples.reading.classes)
        return names
    return read_class_names(class_names, samples.classes)


def _shown(
    found: Predictions,
    evaluation: Evaluation,
    labels: Sequence[str] | None,
    samples: Samples,
    drawn: Sequence[int],
    options: Mapping[str, Any],
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what depends on the task: the figures, what is known of the drawn images, and their pictures."""
    names = [short_name(samples, index) for index in drawn]
    shown = samples.subset(drawn) if drawn else samples
    places, said = range(len(drawn)), {"doubts": [*doubts(found)]}
    if found.overlaps:
        views = overlay_views(found, shown, places, options.get("amp"))
        return mask_facts(found, evaluation, labels) | said, drawn_masks(found, drawn, names), list(views)
    photos = encoded_views(found, shown, places)
    return answer_facts(found, evaluation, labels) | said, drawn_facts(found, drawn, names), list(photos)


def _known(origin: str | Path | None) -> dict[str, Any]:
    """Return what is known of the network's file, and of its run."""
    if origin is None:
        return {"checkpoint": None, "epochs": None}
    return {"checkpoint": file_facts(origin), "epochs": read_summary(origin)}


def render(facts: Mapping[str, Any], accuracy: Sequence[Chart], pictures: Sequence[Mapping[str, Any]]) -> str:
    """Return the page, by the templates next to this file.

    Args:
        facts: as ``write_report`` returns them.
        accuracy: charts of the network and its baselines.
        pictures: data URIs of each example by the name of its size, or as of `overlay_views`.
    """
    pages = Environment(loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined)
    pages.trim_blocks = pages.lstrip_blocks = True
    pages.filters |= {"number": _number, "percent": _percent}
    # Markup: the script is ours, and an escaped one would not run.
    script = Markup(pages.get_template("slider.js").render())
    plain = json.loads(json.dumps(facts), parse_constant=lambda _: None)  # NaN is null
    metric = Task(name=plain["network"]["task"]).metric
    return pages.get_template("page.html").render(
        facts=plain,
        metric=metric,
        title=plain["network"]["name"].rpartition("/")[2],
        pictures=pictures,
        accuracy=[Drawing(chart) for chart in accuracy],
        training=[Drawing(chart) for chart in _training_charts(plain["epochs"] or [])],
        rows=_rows(plain, metric),
        beside=_beside(plain, metric),
        latencies=[_latencies(machine, rows) for machine, rows in plain["network"]["costs"].items()],
        own=NETWORK,
        own_name=OWN_NAME,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _rows(facts: Mapping[str, Any], metric: Metric) -> dict[str, dict[str, Any]]:
    """Return the row of each size with what follows from several of its figures."""
    rows = facts["evaluation"]["resolutions"]
    native = rows[facts["sizes"][0]]["multiply_adds"]
    return {
        size: {
            **rows[size],
            "score": rows[size][metric.key],
            "interval": rows[size][f"{metric.key}_interval"],
            "share": 100 * rows[size]["multiply_adds"] / native,
            "state": _state(size, facts["network"]["resolutions"]),
            "importance": facts["network"]["importance"].get(size),
        }
        for size in facts["sizes"]
    }


def _beside(facts: Mapping[str, Any], metric: Metric) -> dict[str, dict[str, dict[str, Any]]]:
    """Return of each baseline, by size, its score, by how many points the network is better, and how sure that is."""
    own, others = facts["evaluation"]["resolutions"], facts["evaluation"].get("baselines", {})
    return {
        name: {
            size: {
                "score": row[metric.key],
                "points": own[size][metric.key] - row[metric.key],
                **_compared(row.get("paired"), row.get("difference")),
            }
            for size, row in other["resolutions"].items()
        }
        for name, other in others.items()
    }


def _compared(paired: Mapping[str, Any] | None, difference: Sequence[float] | None) -> dict[str, Any]:
    """Return the words on a difference, and whether it is resolved: by McNemar's test, or by an interval of masks."""
    if paired is not None:
        alone = f"only this network right: {paired['only_network']}, only the baseline: {paired['only_baseline']}"
        return {"words": f"{alone}, p = {paired['p_value']:.2g}", "differs": paired["p_value"] < 0.05}
    assert difference is not None
    low, high = 0 - difference[1], 0 - difference[0]
    return {"words": f"95 % interval: {low:+.2f} to {high:+.2f}", "differs": not low <= 0 <= high}


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
        ("mIoU after each epoch", "mIoU (%)", "miou_"),
        ("Importance scores", "softmax(alpha)", "score_"),
    )
    charts = []
    for title, label, pattern in ways:
        curves: list[Curve] = []
        for key in epochs[0] if epochs else ():
            if re.match(pattern, key):
                pairs = [(row.get("epoch"), row.get(key)) for row in epochs]
                points = tuple(Point(x, y) for x, y in pairs if x is not None and y is not None)
                curves += [Curve(key.partition("_")[2] or key, points, len(curves))] if points else []
        if curves:
            charts.append(Chart(title, "epoch", label, tuple(curves)))
    return charts


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f} %"
