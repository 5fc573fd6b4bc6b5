"""ConversionReport: what make_switchable found in a model, and what it proved."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from rsconvert.surgery.bn import batchnorms
from rsconvert.surgery.graph import GraphFacts

__all__ = ["BatchNormRecord", "ConversionReport", "make_report"]


@dataclass(frozen=True)
class BatchNormRecord:
    """One BatchNorm: how the graph reaches it, what feeds it, and how often a forward in eval mode runs it.

    ``found`` is ``graph`` for a call site, ``leaf`` inside a module that fx can't enter, ``tree`` when only the
    module tree shows it, as with heads that run in train mode alone.
    """

    name: str
    kind: str
    channels: int
    found: Literal["graph", "leaf", "tree"]
    producer: str | None
    calls: int


@dataclass(frozen=True)
class ConversionReport:
    """What ``make_switchable`` did; ``exact`` says for each resolution whether the path equals the source."""

    batchnorms: tuple[BatchNormRecord, ...]
    exact: dict[int, bool]
    parameters_before: int
    parameters: int
    opaque: dict[str, str]

    @property
    def unseen(self) -> tuple[str, ...]:
        """The BatchNorms that ran although neither the graph nor an opaque module shows them: the hooks' audit.

        They are converted all the same, for the swap follows the module tree.
        """
        return tuple(record.name for record in self.batchnorms if record.calls and record.found == "tree")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        found = Counter(record.found for record in self.batchnorms)
        ways = ", ".join(f"{n} by {way}" for way, n in found.items())
        exact = ", ".join(f"{r} {'exact' if same else 'DIFFERENT'}" for r, same in self.exact.items())
        unseen = f"\nran unseen by the graph: {', '.join(self.unseen)}" if self.unseen else ""
        return (
            f"{len(self.batchnorms)} of {len(self.batchnorms)} BatchNorms converted ({ways})\n"
            f"paths: {exact}\nparameters: {self.parameters_before:,} -> {self.parameters:,}{unseen}"
        )


def make_report(
    model: nn.Module, parameters: int, facts: GraphFacts, executed: Counter[str], exact: dict[int, bool]
) -> ConversionReport:
    """Return the report on a model converted to ``parameters``; a BatchNorm under two names appears under the first."""
    found = batchnorms(model)
    first = {id(bn): name for name, bn in reversed(found.items())}
    records = tuple(_record(name, bn, facts, executed) for name, bn in found.items() if first[id(bn)] == name)
    before = sum(p.numel() for p in model.parameters())
    return ConversionReport(records, exact, before, parameters, facts.opaque)


def _record(name: str, bn: nn.Module, facts: GraphFacts, executed: Counter[str]) -> BatchNormRecord:
    sizes = [int(tensor.numel()) for tensor in (*bn.parameters(), *bn.buffers())]
    return BatchNormRecord(
        name=name,
        kind=type(bn).__name__,
        channels=sizes[0] if sizes else int(getattr(bn, "num_features", 0)),
        found=_way(name, facts),
        producer=facts.producers.get(name),
        calls=executed[name],
    )


def _way(name: str, facts: GraphFacts) -> Literal["graph", "leaf", "tree"]:
    if facts.calls[name]:
        return "graph"
    inside = any(not leaf or name == leaf or name.startswith(f"{leaf}.") for leaf in facts.opaque)
    return "leaf" if inside else "tree"
