"""Write docs/models.md from the table of models that the package ships, and from what third_party.py printed.

python docs/make_models.py
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rsconvert.compatibility import Table, read_table, totals

__all__ = ["models_page"]

THIRD_PARTY = Path(__file__).parents[1] / "benchmarks" / "third_party.md"
CLASSES = {
    "A": "runs at 224, 192, 160, 128 and 96 as it is; a detector, which resizes inside, with its transform set so",
    "B": "is built again for each resolution, around the same tensors",
    "C": "is built again, and its position tables are private: timm's own functions resample them",
    "D": "runs at some of the five resolutions, or at others alone",
}


def models_page(table: Table) -> str:
    """Return the page as Markdown."""
    lines = [
        "# Models",
        "",
        "Written by `python docs/make_models.py` from the table that `rsconvert models` shows.",
        "",
    ]
    for part in (_totals(table), _families(table), _listed(table), _refusals(table), _training(table), _third_party()):
        lines += [*part, ""]
    return "\n".join(lines[:-1]) + "\n"


def _totals(table: Table) -> Iterator[str]:
    sums = totals(table.rows)
    versions = ", ".join(f"{name} {version}" for name, version in table.versions.items())
    yield f"`{table.command}`, {table.hardware}; {versions}; {table.seconds / 60:.0f} minutes by the clock."
    yield ""
    yield "Every architecture is built without pretrained weights and run on real tensors in float32. A path is"
    yield "exact if its output, and what each of its BatchNorms gives, equals the source's bit for bit in eval mode,"
    yield "with γ, β, μ, σ² scrambled differently in each set."
    yield ""
    yield from _grid(("what", "how many"), _counts(sums))
    yield ""
    for name, meaning in CLASSES.items():
        yield f"- class {name}: {meaning}"


def _counts(sums: Mapping[str, object]) -> Iterator[tuple[object, ...]]:
    total: dict[str, dict[str, object]] = {key: dict(v) for key, v in sums.items() if isinstance(v, dict)}
    classes, training, seconds = total["classes"], total["training"], total["seconds"]
    yield "architectures", sums["models"]
    yield "with BatchNorm", sums["with_batchnorm"]
    yield "converted", f"{sums['converted']} of {sums['with_batchnorm']}"
    yield "class A, B, C, D", ", ".join(str(classes[name]) for name in CLASSES)
    yield "BatchNorms", sums["batchnorms"]
    yield "found by graph, leaf, tree", ", ".join(str(n) for n in total["found"].values())
    yield "BatchNorms that ran unseen", sums["unseen"]
    yield "paths exact, different", ", ".join(str(n) for n in total["paths"].values())
    yield "models compared with S = 3 on batches of two, exact", ", ".join(str(n) for n in total["batches"].values())
    yield "training steps equal, different, impossible in the source", ", ".join(str(n) for n in training.values())
    yield (
        "seconds to create, convert, run the proofs",
        ", ".join(str(seconds[p]) for p in ("create", "convert", "forwards")),
    )


def _families(table: Table) -> Iterator[str]:
    yield "## Families"
    yield ""
    yield "Models with BatchNorm by the library's file that defines them. On batches: how many of them were compared"
    yield "with the source on batches of two, at three resolutions."
    yield ""
    families = defaultdict(list)
    for row in table.rows:
        if row.batchnorms:
            families[row.family].append(row)
    rows = []
    for family, members in sorted(families.items()):
        counts = [sum(row.size_class == name for row in members) or "" for name in CLASSES]
        found = [sum(row.found.get(way, 0) for row in members) or "" for way in ("graph", "leaf", "tree")]
        rows.append((family, *counts, *found, sum(bool(row.batches) for row in members) or ""))
    yield from _grid(("family", *CLASSES, "graph", "leaf", "tree", "on batches"), rows)


def _listed(table: Table) -> Iterator[str]:
    yield "## Classes B and C"
    yield ""
    for name in ("B", "C"):
        ways: dict[str, list[str]] = defaultdict(list)
        for row in table.rows:
            if row.size_class == name:
                tables = ", ".join(row.tables)
                ways[f"`{row.built_with}`" + (f", private {tables}" if tables else "")].append(row.name)
        for way, names in sorted(ways.items()):
            yield f"- {name}, {len(names)} by {way}: {', '.join(names)}"


def _refusals(table: Table) -> Iterator[str]:
    yield "## Class D"
    yield ""
    yield "Tried were the five resolutions and the other multiples of 32 up to 320; a model may work at larger ones."
    yield ""
    for row in table.rows:
        if row.size_class == "D":
            yield f"- **{row.name}** works at {', '.join(map(str, row.resolutions))}"
            yield from (f"  - {_sides(sides)}: {reason}" for reason, sides in _by_reason(row.refused).items())
        elif row.size_class == "failed":
            yield f"- **{row.name}** was not converted: {row.error or f'paths differ at {_sides(row.different)}'}"


def _training(table: Table) -> Iterator[str]:
    yield "## Training"
    yield ""
    yield "One step in train mode on two images at the smallest resolution that works: same seed, and the output, all"
    yield "gradients and the moved statistics must equal the source's, bit for bit, and no other set may change."
    yield ""
    for row in table.rows:
        if row.training and row.training["same"] is not True:
            word = "differs" if row.training["same"] is False else "the source can't"
            yield f"- **{row.name}** at {row.training['resolution']}: {word}: {row.training['words']}"
    single = [row.name for row in table.rows if any("1×1" in warning for warning in row.warnings)]
    yield ""
    yield f"BatchNorm on 1×1 maps, so that a batch of one can't train, in {len(single)} models: {', '.join(single)}"


def _third_party() -> Iterator[str]:
    yield "## Third-party networks"
    yield ""
    yield "Networks of other packages, with random weights, each at two sizes. *Exact*: the outputs of every path, and"
    yield "of `net(x)`, equal the source's, bit for bit in eval mode; the conversion has its own proof besides."
    yield "*Save, load*: `load(path, model=…)` around a new plain model gives the same keys, values and outputs."
    yield "*Deepcopy*: the same outputs, and no tensor is shared. *Step*: `net(views=…)` at both sizes in train mode,"
    yield "a loss on every output, backward, a step of SGD: gradients and values are finite, and the BN sets of both"
    yield "sizes have moved. `effdet` and LeViT are built again for each size (`build=`), the others take both."
    yield ""
    yield from THIRD_PARTY.read_text(encoding="utf-8").splitlines()


def _by_reason(refused: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for resolution, reason in refused.items():
        reasons[f"`{reason}`"].append(resolution)
    return reasons


def _sides(resolutions: Iterable[object]) -> str:
    return ", ".join(map(str, resolutions))


def _grid(head: Iterable[object], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    head = list(head)
    yield f"| {' | '.join(map(str, head))} |"
    yield "|---" * len(head) + "|"
    yield from (f"| {' | '.join(map(str, row))} |" for row in rows)


if __name__ == "__main__":
    Path(__file__).with_name("models.md").write_text(models_page(read_table()), encoding="utf-8")
