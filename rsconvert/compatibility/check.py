"""Measures one model: what a conversion finds, at which resolutions it is exact, and what it costs."""

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace

import torch
from torch import nn

from rsconvert.compatibility.exactness import exact_in_batches
from rsconvert.compatibility.names import family_of
from rsconvert.compatibility.table import FIVE, Row
from rsconvert.compatibility.train_step import check_training
from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.models import create_model, is_file_name
from rsconvert.surgery import ConversionReport, SwitchableModel, batchnorms, examine, fill_zeros, make_switchable, write

__all__ = ["count", "measure"]

# Where a model refuses some of the five, these tell which sizes it takes instead.
_FURTHER = tuple(range(320, 0, -32))


def count(name: str) -> Row:
    """Return the parameters and BatchNorms of a model, built without data where its builder allows it.

    Raises:
        UnsupportedModelError: the name is unknown, or its builder fails.
    """
    try:
        if is_file_name(name):
            raise UnsupportedModelError(f"{name} may do anything with its data. Build it.")
        with torch.device("meta"):
            model = create_model(name)
    except UnsupportedModelError:  # some builders compute with their tensors
        model = create_model(name)
    size = sum(parameter.numel() for parameter in model.parameters())
    return Row(name=name, family=family_of(name), parameters=size, batchnorms=len(_distinct(model)))


def measure(name: str, *, in_batches: bool = False) -> Row:
    """Return the row of a model, run on real tensors without pretrained weights.

    It is converted at the five resolutions; where it refuses one of them, at those and other multiples of 32 up to 320
    that work. A step in train mode follows at the smallest.

    Args:
        in_batches: compare a network of three sets, the largest, a middle and the smallest resolution, on batches too.
    Raises:
        UnsupportedModelError: the name is unknown, or its builder fails.
    """
    row = count(name)
    if not row.batchnorms:
        return row
    clock = _Clock()
    with clock.part("create"):
        model = create_model(name)
    try:
        write(model, fill_zeros(model))
        net, refused = _convert(model)
    except (UnsupportedModelError, ResolutionError) as error:
        return replace(row, error=str(error), seconds=clock.seconds)
    assert net.report is not None
    row = _reported(row, net.report, refused)
    build = _builder(name, net.report)
    batches: dict[str, bool] = {}
    if in_batches:
        with clock.part("batches"):
            batches = _batches(model, row.resolutions, build)
    with clock.part("training"):
        source = _source_at(model, net, build, net.resolutions[-1])
        training = check_training(source, net, net.resolutions[-1])
    return replace(row, batches=batches, training=asdict(training), seconds={**row.seconds, **clock.seconds})


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def _distinct(model: nn.Module) -> set[int]:
    return {id(bn) for bn in batchnorms(model).values()}


def _convert(model: nn.Module) -> tuple[SwitchableModel, dict[int, str]]:
    """Return the network at the five resolutions, or else at all that work, and why the rest does not."""
    try:
        return make_switchable(model, FIVE), {}
    except ResolutionError:
        candidates = sorted({*FIVE, *_FURTHER}, reverse=True)
        refused = examine(model, candidates).refused
        working = [r for r in candidates if r not in refused]
        if not working:
            raise
        return make_switchable(model, working), {r: refused[r] for r in FIVE if r in refused}


def _reported(row: Row, report: ConversionReport, refused: dict[int, str]) -> Row:
    return replace(
        row,
        batchnorms=len(report.batchnorms),
        found=report.ways,
        unseen=report.unseen,
        resolutions=tuple(r for r, same in report.exact.items() if same),
        different=tuple(r for r, same in report.exact.items() if not same),
        refused={str(r): " ".join(why.split()) for r, why in refused.items()},
        built_with=report.built_with,
        tables=dict(Counter(table.rpartition(".")[2] for table in report.tables)),
        warnings=report.warnings,
        seconds={part: round(seconds, 3) for part, seconds in report.seconds.items()},
    )


_Builder = Callable[[int], nn.Module] | None


def _builder(name: str, report: ConversionReport) -> _Builder:
    """Return what builds the model for a resolution, independently of the conversion; None if one takes all sizes."""
    if report.built_with is None:
        return None
    argument = report.built_with
    return lambda r: create_model(name, model_kwargs={argument: r if argument == "img_size" else True})


def _source_at(model: nn.Module, net: SwitchableModel, build: _Builder, resolution: int) -> nn.Module:
    """Return the ordinary model for a resolution, with the path's values where it is built again."""
    if build is None:
        return model
    source = build(resolution)
    source.load_state_dict(net.at(resolution).state_dict())
    return source


def _batches(model: nn.Module, resolutions: Sequence[int], build: _Builder) -> dict[str, bool]:
    """Return which paths of a network of three sets equal the source on batches of two."""
    three = sorted({resolutions[0], resolutions[len(resolutions) // 2], resolutions[-1]}, reverse=True)
    net = make_switchable(model, three)
    exact = exact_in_batches(net, lambda r: _source_at(copy.deepcopy(model), net, build, r))
    return {str(r): same for r, same in exact.items()}
