"""The report of a comparison: one Markdown page, its figures and the numbers in them beside it."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rsconvert.checkpoint import replacing
from rsconvert.study.comparison.figures import plot_accuracies, plot_gains, plot_scores
from rsconvert.study.comparison.results import Comparison

__all__ = ["write_report"]


def write_report(found: Comparison, command: str | None = None) -> None:
    """Write ``report.md``, ``report.json``, ``accuracy.csv``, ``scores.csv`` and the figures into the folder.

    Args:
        command: the line that made it, to be told.
    Raises:
        CheckpointError: the folder can't be written.
    """
    folder = found.folder
    _write_csv(folder / "accuracy.csv", _accuracy_rows(found))
    plot_accuracies(found, folder / "accuracy")
    if any(found.gains(line) for line in found.lines):
        plot_gains(found, folder / "gains")
    if found.learning:
        _write_csv(folder / "scores.csv", _score_rows(found))
        plot_scores(found, folder / "scores")
    _write(folder / "report.json", json.dumps(found.to_dict(), indent=2))
    _write(folder / "report.md", "\n\n".join(_sections(found, command)))


def _sections(found: Comparison, command: str | None) -> Iterator[str]:
    yield "# Comparison of ways to train"
    if command is not None:
        yield f"```sh\n{command}\n```"
    yield from _accuracy_section(found)
    yield from _gain_section(found)
    if found.learning:
        yield from _score_section(found)
    yield from _budget_section(found)
    yield from _run_section(found)


def _accuracy_section(found: Comparison) -> Iterator[str]:
    seeds = ", ".join(map(str, found.seeds))
    several = "mean ± sample standard deviation over the seeds" if len(found.seeds) > 1 else "of one seed"
    yield f"## Accuracy\n\nTop-1 in percent on {found.images} images, {several} ({seeds})."
    yield found.table()
    yield (
        "*In italics*: not trained at this resolution; a switchable network interpolates its BN sets there, and beyond "
        f"its ends the nearest set serves. The mean is over {_listed(found.trained)}."
    )
    yield "![top-1 over resolution](accuracy.png)\n\n[SVG](accuracy.svg), [CSV](accuracy.csv)"
    yield "\n".join(f"- **{method.label}**: {method.about}." for method in found.methods)
    if any(method.apart for method in found.methods):
        yield f"I-{found.trained[0]} is the I-Net of {found.trained[0]} pixels, tested at every resolution."


def _gain_section(found: Comparison) -> Iterator[str]:
    if not any(found.gains(line) for line in found.lines):
        return
    yield "## Gains against the I-Nets\n\nIn points of top-1, mean ± deviation of the differences within each seed."
    yield found.gain_table()
    yield "![gains](gains.png)\n\n[SVG](gains.svg), [CSV](accuracy.csv)"


def _score_section(found: Comparison) -> Iterator[str]:
    yield (
        "## Importance scores\n\nsoftmax(alpha) after the last epoch, mean over the seeds: the weights of the "
        "resolutions in the ensemble."
    )
    rows = [["", *map(str, found.trained)], ["---"] * (len(found.trained) + 1)]
    for method in found.learning:
        last = [run.scores[-1] for run in found.runs if run.method == method.name]
        means = {r: sum(scores[r] for scores in last) / len(last) for r in last[0]}
        rows.append([method.label, *(f"{means[r]:.2f}" if r in means else "" for r in found.trained)])
    yield _table(rows)
    yield "![scores](scores.png)\n\n[SVG](scores.svg), [CSV](scores.csv)"


def _budget_section(found: Comparison) -> Iterator[str]:
    settings = found.settings
    rate = (
        "All methods learn at the same rate"
        if settings["same_lr"]
        else "An I-Net learns at the rate below, a network of S views at it divided by S, for its loss is a sum over S"
    )
    # 0 and False are equal.
    rows = [[f"`{key}`", _told(value)] for key, value in settings.items() if value not in (None, False, "off")]
    yield (
        "## Budget\n\nOne for all: every run starts from the same weights, sees the same images in the same order of "
        f"its seed, {settings['epochs']} epochs, the same number of images per step. {rate}. Every number is of the "
        "last epoch's network: no epoch is chosen by the val images. What is off is left out below."
    )
    yield _table([["setting", "value"], ["---"] * 2, *rows])


def _run_section(found: Comparison) -> Iterator[str]:
    yield "## Runs\n\nMinutes of training, evaluations apart."
    places = {run.folder.rpartition("/")[0]: run.method for run in found.runs}
    rows = [["", *(f"seed {seed}" for seed in found.seeds)], ["---"] * (len(found.seeds) + 1)]
    minutes = {(run.folder.rpartition("/")[0], run.seed): run.seconds / 60 for run in found.runs}
    for place in places:
        known = [minutes.get((place, seed)) for seed in found.seeds]
        rows.append([f"`{place}`", *("" if value is None else f"{value:.1f}" for value in known)])
    yield _table(rows)
    machines = {json.dumps(run.machine): run.machine for run in found.runs}.values()
    yield "\n".join(f"- {', '.join(f'{key} {value}' for key, value in machine.items())}" for machine in machines)


def _accuracy_rows(found: Comparison) -> Iterator[dict[str, Any]]:
    for line in found.lines:
        gains = found.gains(line)
        for r, by_seed in line.top1.items():
            for seed, top1 in by_seed.items():
                facts = {"method": line.name, "title": line.label, "resolution": r, "trained": r in line.trained}
                gain = gains.get(r, {}).get(seed, "")
                yield {**facts, "seed": seed, "top1": top1, "top5": line.top5[r][seed], "gain": gain}


def _score_rows(found: Comparison) -> Iterator[dict[str, Any]]:
    learning = {method.name for method in found.learning}
    for run in found.runs:
        for epoch, scores in enumerate(run.scores if run.method in learning else (), start=1):
            for r, score in scores.items():
                yield {"method": run.method, "seed": run.seed, "epoch": epoch, "resolution": r, "score": score}


def _table(rows: Iterable[Iterable[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))


def _told(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_told, value)) if isinstance(value, (list, tuple)) else str(value)


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with replacing(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        listed = list(rows)
        writer = csv.DictWriter(file, list(listed[0]))
        writer.writeheader()
        writer.writerows(listed)
