"""Results as text for people and as JSON for machines."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rsconvert.surgery import ConversionReport, SwitchableModel

__all__ = ["log_epoch", "log_loading", "plain", "print_conversion", "print_refusal", "print_result", "row_line"]


def print_result(facts: Mapping[str, Any], as_json: bool, text: str) -> None:
    """Print one JSON object, or the text."""
    click.echo(json.dumps(facts) if as_json else text)


def print_conversion(net: "SwitchableModel", target: Path | None, as_json: bool) -> None:
    """Print what ``wrap`` did, and wrote to ``target``; if that is None, a line for each BatchNorm too."""
    from rsconvert.evaluation import multiply_adds

    report, source, preprocessing = net.report, net.source, dict(vars(net.source.preprocessing))
    assert report is not None
    costs = {r: multiply_adds(net.at(r), r) for r in net.resolutions}
    facts = {
        "checkpoint": None if target is None else str(target),
        "batchnorms": len(report.batchnorms) + len(report.unconverted),
        "converted": sum(1 for _ in net.switchable_bns()),
        "resolutions": {str(r): {"exact": report.exact[r], "multiply_adds": costs[r]} for r in net.resolutions},
        "parameters": report.parameters,
        "parameters_before": report.parameters_before,
        "refused": [r for r, same in report.exact.items() if not same],
        "weights": source.weights,
        "new_classifier": list(source.new_classifier),
        **preprocessing,
        **({"report": report.to_dict()} if target is None else {}),
    }
    lines = [report.details(), ""] if target is None else []
    lines += [str(report), "multiply-adds: " + ", ".join(f"{r} {cost / 1e6:.1f} M" for r, cost in costs.items())]
    lines += [f"{key}: {plain(value)}" for key, value in preprocessing.items()]
    if source.weights is not None:
        lines.append(f"weights: {source.weights}")
    if source.new_classifier:
        lines.append(f"new classifier, starting at zero: {', '.join(source.new_classifier)}")
    lines.append("nothing written (dry run)" if target is None else f"wrote {target}")
    print_result(facts, as_json, "\n".join(lines))


def print_refusal(report: "ConversionReport", as_json: bool) -> None:
    """Print what a model holds whose resolutions don't all work; the error itself follows."""
    sides = [*report.works, *report.refused]
    facts = {
        "checkpoint": None,
        "batchnorms": len(report.batchnorms) + len(report.unconverted),
        "converted": 0,
        "resolutions": {str(r): {"works": r in report.works} for r in sorted(sides, reverse=True)},
        "refused": list(report.refused),
        "report": report.to_dict(),
    }
    print_result(facts, as_json, f"{report.details()}\n\n{report}")


def log_loading(net: "SwitchableModel") -> None:
    """Print a line on stderr if a file of the network will not be enough to load it."""
    from rsconvert.checkpoint import loading_note

    if (note := loading_note(net)) is not None:
        click.echo(f"note: {note}", err=True)


def log_epoch(row: Mapping[str, Any], epochs: int) -> None:
    """Print a line on stderr for an epoch that is over."""
    click.echo(
        f"epoch {row['epoch']}/{epochs}  loss {row['loss']:.3f}  {row_line(row)}  {row['images_per_second']} img/s",
        err=True,
    )


def row_line(row: Mapping[str, Any]) -> str:
    """Return the accuracies of a row of the summary, in percent."""
    return "top-1 " + "  ".join(
        f"{key.removeprefix('top1_')}: {value:.1f}" for key, value in row.items() if key.startswith("top1_")
    )


def plain(value: object) -> str:
    """Return a value as a person would write it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    return ", ".join(map(plain, value)) if isinstance(value, (list, tuple)) else str(value)
