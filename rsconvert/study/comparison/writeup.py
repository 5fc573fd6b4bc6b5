"""The report of a comparison: one Markdown page, next to it its figures and their numbers."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib.axes import Axes

from rsconvert.checkpoint import replacing
from rsconvert.models import Metric
from rsconvert.study.comparison.findings import Comparison, Estimate, Line
from rsconvert.study.curves import Chart, Curve, Point, draw_chart, over_cost, over_resolution
from rsconvert.study.figures import new_figure, paper_style, save_figures, series_places, series_style
from rsconvert.study.importance import Importance, draw_scores, mean_scores
from rsconvert.text import Table, plain

__all__ = ["plot_accuracies", "plot_costs", "plot_gains", "plot_scores", "write_report"]

_UNRESOLVED = (
    "In parentheses: not resolved, because 0 is within the paired 95 % interval over the images, or the deviation over "
    "the seeds is as large."
)
_HATCHES = ("", "///", "...", "\\\\\\", "xxx")


def write_report(found: Comparison, command: str | None = None) -> None:
    """Write ``report.md``, ``report.json``, ``accuracy.csv``, ``scores.csv`` and the figures into the folder.

    Args:
        command: the command line that the report shows.
    Raises:
        CheckpointError: the folder can't be written.
    """
    folder = found.folder
    _write(folder / "accuracy.csv", _accuracy_data(found).as_csv())
    plot_accuracies(found, folder / "accuracy")
    plot_costs(found, folder / "cost")
    if any(found.gains(line) for line in found.lines):
        plot_gains(found, folder / "gains")
    if found.learning:
        _write(folder / "scores.csv", _score_data(found).as_csv())
        plot_scores(found, folder / "scores")
    _write(folder / "report.json", json.dumps(found.to_dict(), indent=2) + "\n")
    _write(folder / "report.md", "\n\n".join(_sections(found, command)) + "\n")


def _sections(found: Comparison, command: str | None) -> Iterator[str]:
    yield "# Comparison of ways to train"
    if command is not None:
        yield f"```sh\n{command}\n```"
    yield from _accuracy_section(found)
    if any(method.other for method in found.methods):
        yield from _other_section(found)
    if any(found.gains(line) for line in found.lines):
        yield from _gain_section(found)
    if found.learning:
        yield from _score_section(found)
    yield from _budget_section(found)
    yield from _run_section(found)


def _accuracy_section(found: Comparison) -> Iterator[str]:
    title = found.metric.title
    start = title.capitalize() if title == title.lower() else title
    yield f"## Accuracy\n\n{start} in percent on {found.images} images, {_spread(found)}."
    yield found.table()
    yield (
        "*In italics*: not trained at this resolution; a switchable network interpolates its BN sets there, and beyond "
        f"its ends the nearest set serves. The mean is over {plain(found.trained)}."
    )
    yield f"![{title} over resolution](accuracy.png)\n\nBars: as ±. [SVG](accuracy.svg), [CSV](accuracy.csv)"
    yield f"![{title} over multiply-adds](cost.png)\n\nBars: as ±. [SVG](cost.svg)"
    yield "\n".join(f"- **{method.label}**: {method.about}." for method in found.methods)
    if any(method.apart for method in found.methods):
        yield f"I-{found.trained[0]} is the I-Net of {found.trained[0]} pixels, tested at every resolution."


def _spread(found: Comparison) -> str:
    """Return what stands before and behind ±."""
    if len(found.seeds) > 1:
        return f"mean ± sample standard deviation over the seeds ({plain(found.seeds)})"
    return f"of one seed ({plain(found.seeds)}), ± half of the 95 % interval over the images"


def _other_section(found: Comparison) -> Iterator[str]:
    yield (
        f"## Against other networks\n\nEach was trained at {max(found.trained)} pixels alone, with the budget of an "
        f"I-Net. Next to it the largest path that costs no more, and what its {found.metric.title} is above that "
        f"network's on the same images, in points; {_spread(found)}. {_UNRESOLVED}"
    )
    yield found.other_table().as_markdown()


def _gain_section(found: Comparison) -> Iterator[str]:
    yield (
        f"## Gains against the I-Nets\n\nIn points of {found.metric.title} on the same images; of the differences "
        f"within each seed, {_spread(found)}. {_UNRESOLVED}"
    )
    yield found.gain_table()
    yield "![gains](gains.png)\n\nLines on the bars: as ±. [SVG](gains.svg), [CSV](accuracy.csv)"


def _score_section(found: Comparison) -> Iterator[str]:
    yield (
        "## Importance scores\n\nsoftmax(alpha) after the last epoch, mean over the seeds: the weights of the "
        "resolutions in the ensemble."
    )
    rows: list[list[object]] = []
    for label, scores in _scores(found).items():
        rows.append([label, *(scores.last.get(r) for r in found.trained)])
    yield Table(["score at pixels", *map(str, found.trained)], rows).as_markdown()
    yield "![scores](scores.png)\n\n[SVG](scores.svg), [CSV](scores.csv)"


def _budget_section(found: Comparison) -> Iterator[str]:
    settings = found.settings
    rate = (
        "All methods learn at the same rate"
        if settings["same_lr"]
        else "An I-Net learns at the rate below, a network of S views at it divided by S, for its loss is a sum over S"
    )
    # 0 and False are equal.
    rows = [[f"`{key}`", plain(value)] for key, value in settings.items() if value not in (None, False, "off")]
    yield (
        "## Budget\n\nOne for all: every run starts from the same weights, reads the same images in the same order of "
        f"its seed, {settings['epochs']} epochs, the same number of images per step. {rate}. Every number is of the "
        "last epoch's network: no epoch is chosen by the val images. What is off is left out below."
    )
    if any(method.fit for method in found.methods):
        yield "Source, calibrated, heads and FixRes have no epochs; all but FixRes start from the same weights too."
    yield Table(["setting", "value"], rows).as_markdown()


def _run_section(found: Comparison) -> Iterator[str]:
    yield "## Runs\n\nMinutes of training or fitting, evaluations apart."
    minutes: dict[str, dict[int, float]] = {}
    for run in found.runs:
        minutes.setdefault(run.folder.rpartition("/")[0], {})[run.seed] = run.seconds / 60
    rows = [
        [f"`{place}`", *(f"{by_seed[seed]:.1f}" if seed in by_seed else "" for seed in found.seeds)]
        for place, by_seed in minutes.items()
    ]
    yield Table(["minutes", *(f"seed {seed}" for seed in found.seeds)], rows).as_markdown()
    machines = {json.dumps(run.machine): run.machine for run in found.runs}.values()
    yield "\n".join(f"- {', '.join(f'{key} {value}' for key, value in machine.items())}" for machine in machines)


def _accuracy_data(found: Comparison) -> Table:
    titles = ("method", "title", "resolution", "trained", "seed", found.metric.key, found.second, "gain")
    rows = [
        (line.name, line.label, r, r in line.trained, seed, score, line.second[r][seed], gains.get(r, {}).get(seed))
        for line in found.lines
        for gains in (found.gains(line),)
        for r, by_seed in line.score.items()
        for seed, score in by_seed.items()
    ]
    return Table(titles, rows)


def _score_data(found: Comparison) -> Table:
    rows = [
        (run.method, run.seed, epoch, r, score)
        for run in found.runs
        if run.method in {method.name for method in found.learning}
        for epoch, scores in enumerate(run.scores, start=1)
        for r, score in scores.items()
    ]
    return Table(("method", "seed", "epoch", "resolution", "score"), rows)


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:  # CSV has the ends of lines of RFC 4180
        part.write_text(text, encoding="utf-8", newline="\r\n" if path.suffix == ".csv" else "\n")


@paper_style
def plot_accuracies(found: Comparison, stem: Path) -> None:
    """Draw each line's mean score in percent over resolution, with its spread; each variant has its own panel."""
    _plot_curves(found, stem, over_resolution, lambda _, r: r)


@paper_style
def plot_costs(found: Comparison, stem: Path) -> None:
    """Draw each line's mean score in percent over the multiply-adds of an image, as `plot_accuracies` does."""
    _plot_curves(found, stem, over_cost, lambda line, r: (line.multiply_adds or found.multiply_adds)[r] / 1e6)


def _plot_curves(
    found: Comparison, stem: Path, chart: Callable[[Sequence[Curve], Metric], Chart], x: Callable[[Line, int], float]
) -> None:
    styles = _styles(found)
    with _panels(stem, _variants(found), 4.6, 3.6) as panels:
        for variant, axes in panels.items():
            lines = [line for line in found.lines if line.method.variant == variant]
            draw_chart(axes, chart([_curve(found, line, styles[line.title], x) for line in lines], found.metric))


@paper_style
def plot_gains(found: Comparison, stem: Path) -> None:
    """Draw the gains against the I-Nets in points, as bars with their spread, where a method trained the resolution."""
    several = [line for line in found.lines if len(line.trained) > 1 and found.gains(line)]
    titles, styles = list(dict.fromkeys(line.title for line in several)), _styles(found)
    sides = sorted({r for line in several for r in found.gains(line) if r in line.trained})
    with _panels(stem, _variants(found), 4.6, 3.0) as panels:
        for line in several:
            i, width = titles.index(line.title), 0.8 / len(titles)
            gains = {r: gain for r in line.trained if (gain := found.gain(line, r)) is not None}
            places = {sides.index(r) + (i - (len(titles) - 1) / 2) * width: gain for r, gain in gains.items()}
            _plot_bars(panels[line.method.variant], styles[line.title], line.title, places, width)
        for axes in panels.values():
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set(xlabel="resolution (pixels)", ylabel=f"{found.metric.title} against the I-Nets (points)")
            axes.set_xticks(range(len(sides)), [str(r) for r in sides])


@paper_style
def plot_scores(found: Comparison, stem: Path) -> None:
    """Draw the importance scores, softmax(alpha), after each epoch: a panel per method, mean ± deviation."""
    scores = _scores(found)
    with _panels(stem, {label: label for label in scores}, 2.4, 2.4, "resolution (pixels)") as panels:
        for label, result in scores.items():
            draw_scores(panels[label], result, found.trained)


def _scores(found: Comparison) -> dict[str, Importance]:
    """Return the scores of each learning method over its finished runs."""
    return {m.label: mean_scores([run.scores for run in found.runs if run.method == m.name]) for m in found.learning}


def _variants(found: Comparison) -> dict[str, str]:
    """Return the title of the panel of each variant; a single one needs none."""
    variants = list(dict.fromkeys(line.method.variant for line in found.lines))
    if len(variants) == 1:
        return {variants[0]: ""}
    low, high = found.settings["crop_area"]
    return {variant: variant or f"crops {low:g}-{high:g}" for variant in variants}


def _styles(found: Comparison) -> dict[str, int]:
    """Return the place of each title among the styles, the same in every figure."""
    return series_places(list(dict.fromkeys(line.title for line in found.lines)))


def _curve(found: Comparison, line: Line, style: int, x: Callable[[Line, int], float]) -> Curve:
    points = []
    for r in sorted(line.score):
        if (score := found.accuracy(line, r)) is not None:
            interval = None if score.spread is None else (score.mean - score.spread, score.mean + score.spread)
            points.append(Point(x(line, r), score.mean, interval, str(r), r not in line.trained))
    return Curve(line.title, tuple(points), style)


def _plot_bars(axes: Axes, i: int, title: str, values: Mapping[float, Estimate], width: float) -> None:
    means, spreads = zip(*((gain.mean, gain.spread) for gain in values.values()), strict=True)
    lines = [spread or 0.0 for spread in spreads] if any(spreads) else None
    look = {"color": series_style(i)["color"], "hatch": _HATCHES[i % 5], "edgecolor": "white"}
    axes.bar(list(values), means, width, yerr=lines, capsize=2, label=title, **look)


@contextmanager
def _panels(
    stem: Path, titles: Mapping[str, str], width: float, height: float, legend: str | None = None
) -> Iterator[dict[str, Axes]]:
    """Yield empty axes of a size in inches under the keys of their titles, then write their figure with a legend."""
    columns, rows = min(len(titles), 3), math.ceil(len(titles) / 3)
    figure = new_figure(width, height)
    places = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    panels = dict(zip(titles, places, strict=False))
    yield panels
    for i, (key, axes) in enumerate(panels.items()):
        axes.set_title(titles[key])
        axes.yaxis.label.set_visible(i % columns == 0)
    for unused in places[len(titles) :]:
        unused.remove()
    handles, labels = places[0].get_legend_handles_labels()
    figure.legend(handles, labels, title=legend, loc="outside right upper")
    figure.set_size_inches(width * columns + 1.4, max(height * rows, 0.22 * len(labels) + 0.4))
    save_figures(figure, stem)
