"""make_switchable: the facts of a model, the swap of its BatchNorms, the proof that nothing else changed."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.surgery.bn import SwitchableBN, batchnorms
from rsconvert.surgery.graph import GraphFacts, read_graph
from rsconvert.surgery.network import SwitchableModel, check_resolutions
from rsconvert.surgery.proof import prove
from rsconvert.surgery.source import source_of

__all__ = ["BatchNormRecord", "ConversionReport", "assemble", "make_switchable"]


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

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        found = Counter(record.found for record in self.batchnorms)
        ways = ", ".join(f"{n} by {way}" for way, n in found.items())
        exact = ", ".join(f"{r} {'exact' if same else 'DIFFERENT'}" for r, same in self.exact.items())
        return (
            f"{len(self.batchnorms)} of {len(self.batchnorms)} BatchNorms converted ({ways})\n"
            f"paths: {exact}\nparameters: {self.parameters_before:,} -> {self.parameters:,}"
        )


def make_switchable(
    model: nn.Module,
    resolutions: Sequence[int] = (224, 192, 160, 128, 96),
    *,
    name: str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    private: bool = True,
) -> SwitchableModel:
    """Return a network with one private BN set per resolution, all equal to the model's; ``net.report`` tells what was done.

    The model stays unchanged and shares no tensor with the network. Each path is proved equal to the model,
    bit for bit in eval mode, on scrambled BatchNorm tensors.

    Args:
        resolutions: in pixels, in any order.
        name: what ``rsconvert.load`` builds the model from; known already for a model from ``create_model``.
        model_kwargs: the arguments that the builder of that name needs.
        private: False keeps one BN set for all resolutions (RS-Nets, Fig. 4 left).
    Raises:
        ResolutionError: a resolution is malformed, repeated, or does not work in the model.
        UnsupportedModelError: the model holds no BatchNorm, holds a lazy one, or a path differs from it.
    """
    resolutions = check_resolutions(resolutions)
    found = batchnorms(model)
    if not found:
        raise UnsupportedModelError(
            f"{name or source_of(model).architecture or type(model).__name__} has no BatchNorm to convert; "
            "a network with BatchNorm layers is needed. Choose another model."
        )
    net = assemble(model, resolutions, private=private)
    if name is not None:
        net.source = replace(net.source, architecture=name, model_kwargs=dict(model_kwargs or {}))
    exact, executed = prove(model, net)
    if different := [r for r, same in exact.items() if not same]:
        raise UnsupportedModelError(
            f"{type(model).__name__} computes other values after conversion at {different}; equal bits are needed. "
            "Check that its forward depends on nothing but its input and tensors; otherwise please report it."
        )
    net.report = _report(found, read_graph(model), executed, exact, model, net)
    return net


def assemble(model: nn.Module, resolutions: Sequence[int], *, private: bool = True) -> SwitchableModel:
    """Swap and share without a proof; ``rsconvert.load`` fills such a network."""
    swaps = {id(bn): SwitchableBN(bn, resolutions) for bn in batchnorms(model).values()} if private else {}
    # deepcopy finds every reference to a BatchNorm: two names, plain lists, bound methods.
    return SwitchableModel(copy.deepcopy(model, dict(swaps)), resolutions, source_of(model))


def _report(
    found: Mapping[str, nn.Module],
    facts: GraphFacts,
    executed: Counter[str],
    exact: dict[int, bool],
    model: nn.Module,
    net: SwitchableModel,
) -> ConversionReport:
    records = tuple(
        BatchNormRecord(
            name,
            type(bn).__name__,
            next((int(t.numel()) for t in (*bn.parameters(), *bn.buffers())), 0),
            _way(name, facts),
            facts.producers.get(name),
            executed[name],
        )
        for name, bn in found.items()
    )
    before, after = _count(model), _count(net) - net.alpha.numel()
    return ConversionReport(records, exact, before, after, facts.opaque)


def _way(name: str, facts: GraphFacts) -> Literal["graph", "leaf", "tree"]:
    if facts.calls[name]:
        return "graph"
    inside = any(not leaf or name == leaf or name.startswith(f"{leaf}.") for leaf in facts.opaque)
    return "leaf" if inside else "tree"


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
