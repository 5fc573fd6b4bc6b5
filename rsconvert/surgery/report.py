"""ConversionReport: what was found in a model, at which resolutions it works, and what was proved."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from rsconvert.models import resizes_inside
from rsconvert.surgery.convertible import unconverted
from rsconvert.surgery.graph import GraphFacts, read_graph
from rsconvert.surgery.network import batchnorms, doubt
from rsconvert.surgery.survey import Survey
from rsconvert.text import Table, as_html_block

__all__ = ["BatchNormRecord", "ConversionReport", "make_report"]

_Way = Literal["graph", "leaf", "tree"]


@dataclass(frozen=True)
class BatchNormRecord:
    """One BatchNorm: how the graph reaches it, what feeds it, and how often a forward in eval mode runs it.

    ``found`` is ``graph`` for a call site, ``leaf`` inside a module that fx can't enter, ``tree`` when only the
    module tree shows it, as with heads that run in train mode alone. One that a module computes by F.batch_norm has
    the name of its running mean, and ``F.batch_norm`` as its kind.
    """

    name: str
    kind: str
    channels: int
    found: _Way
    producer: str | None
    calls: int


@dataclass(frozen=True)
class ConversionReport:
    """What an examination found, or a conversion did.

    ``unconverted`` names modules that hold running statistics and compute no BatchNorm that is known: all resolutions
    share them. ``works`` lists the resolutions at which the model runs; ``refused`` gives for any other the first
    operation that fails, with its module and source line; ``exact`` for each proved path whether it equals the source.
    ``built_with`` is the builder's argument, or ``build``, by which the source is built again for each resolution, None
    if one model takes them all; ``tables`` are the position tables that are private then. ``parameters`` counts those
    of the network, without alpha. ``seconds`` is the time of the conversion (facts, swap, sharing), and without it that
    of the forwards of the trials and the proof. ``notes`` list what was read from a model that was made elsewhere.
    ``heads`` are the private classifiers, ``head_parameters`` counts what they add.
    """

    batchnorms: tuple[BatchNormRecord, ...]
    unconverted: tuple[str, ...]
    works: tuple[int, ...]
    refused: dict[int, str]
    exact: dict[int, bool]
    built_with: str | None
    tables: tuple[str, ...]
    warnings: tuple[str, ...]
    parameters_before: int
    parameters: int
    opaque: dict[str, str]
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    head_parameters: int = 0

    @property
    def unseen(self) -> tuple[str, ...]:
        """The BatchNorms that ran although the graph does not show them; converted all the same, by the module tree."""
        return tuple(record.name for record in self.batchnorms if record.calls and record.found == "tree")

    @property
    def ways(self) -> dict[str, int]:
        """How many BatchNorms were found by graph, leaf and tree."""
        return dict(Counter(record.found for record in self.batchnorms))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)

    def details(self) -> str:
        """Return a line for each BatchNorm: its name, class, channels, how it was found, and what feeds it."""
        rows = [(r.name, r.kind, r.channels, r.found, r.producer or "-") for r in self.batchnorms]
        return Table(("BatchNorm", "class", "channels", "found by", "producer"), rows).as_text()

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return f"<ConversionReport: {next(self._lines())}>"

    def _repr_html_(self) -> str:
        return as_html_block(str(self))

    def _lines(self) -> Iterator[str]:
        ways = ", ".join(f"{n} by {way}" for way, n in self.ways.items())
        total = len(self.batchnorms) + len(self.unconverted)
        if self.exact:
            yield f"{len(self.batchnorms)} of {total} BatchNorms converted ({ways})"
            yield "paths: " + ", ".join(f"{r} {'exact' if same else 'DIFFERENT'}" for r, same in self.exact.items())
        else:
            yield f"{total} BatchNorms ({ways})"
            yield f"works at: {', '.join(map(str, self.works)) or 'none'}"
        yield from (f"refused: {resolution}: {reason}" for resolution, reason in self.refused.items())
        if self.built_with:
            private = f", {len(self.tables)} private position tables" if self.tables else ""
            yield f"built again for each resolution: {self.built_with}{private}"
        yield from self.notes
        if self.heads:
            yield f"private classifiers: {', '.join(self.heads)}; {self.head_parameters:,} parameters added"
        yield f"parameters: {self.parameters_before:,} -> {self.parameters:,}"
        if self.unseen:
            yield f"ran unseen by the graph: {', '.join(self.unseen)}"
        yield from (f"warning: {warning}" for warning in self.warnings)


def make_report(model: nn.Module, found: Survey, start: float) -> ConversionReport:
    """Return the report on a survey that began at ``start``, by ``time.perf_counter``."""
    means = [name for name, part in found.functional.items() if part == "running_mean"]
    facts = read_graph(model, means)
    alike = tuple(unconverted(model, found.functional))
    parameters = sum(p.numel() for p in model.parameters())
    head = sum(model.get_parameter(name).numel() for name in found.heads)
    return ConversionReport(
        batchnorms=tuple(_records(model, means, facts, found)),
        unconverted=alike,
        works=tuple(r for r in found.trials if r not in found.refused),
        refused=found.refused,
        exact={},
        built_with=found.way,
        tables=found.tables,
        warnings=tuple(_warnings(model, found, alike)),
        parameters_before=parameters,
        parameters=parameters,
        opaque=facts.opaque,
        heads=tuple(dict.fromkeys(name.rpartition(".")[0] for name in found.heads)),
        head_parameters=(len(found.trials) - 1) * head,
        seconds={"convert": time.perf_counter() - start - found.seconds, "forwards": found.seconds},
    )


def _records(model: nn.Module, means: Sequence[str], facts: GraphFacts, found: Survey) -> Iterator[BatchNormRecord]:
    """Yield a record of each BatchNorm; one under two names appears under the first."""
    executed: Counter[str] = Counter()
    for trial in found.trials.values():
        executed |= trial.calls
    own = batchnorms(model)
    norms = [(name, type(m).__name__, _channels(m)) for name, m in model.named_modules() if name in own]
    norms += [(name, "F.batch_norm", model.get_buffer(name).numel()) for name in means]
    for name, kind, channels in norms:
        inside = any(not leaf or name == leaf or name.startswith(f"{leaf}.") for leaf in facts.opaque)
        way: _Way = "graph" if facts.calls[name] else "leaf" if inside else "tree"
        yield BatchNormRecord(name, kind, channels, way, facts.producers.get(name), executed[name])


def _channels(bn: nn.Module) -> int:
    sizes = (tensor.numel() for tensor in (*bn.parameters(), *bn.buffers()))
    return next(sizes, int(getattr(bn, "num_features", 0)))


def _warnings(model: nn.Module, found: Survey, alike: Sequence[str]) -> Iterator[str]:
    if resizes_inside(model):
        yield (
            "the model resizes inside, so the path is chosen by net.at(resolution) alone, and saves nothing until the "
            "sizes of its transform (min_size, max_size, fixed_size) are set too"
        )
    elif not found.refused and (reason := doubt(found.images)):
        yield reason
    if alike:
        yield (
            f"{_some(alike)}: running statistics, but no BatchNorm that is known, so all resolutions share them; make "
            "it an nn.BatchNorm2d, or call F.batch_norm with its tensors"
        )
    for resolution, trial in found.trials.items():
        if trial.single:
            yield f"at {resolution} {_some(sorted(trial.single))}: BatchNorm on 1×1 maps, a batch of one can't train"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
