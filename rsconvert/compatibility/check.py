"""Measures one model of timm or torchvision: what a conversion finds, where it is exact, and what it costs."""

import copy
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace

import timm
import torch
import torchvision
from torch import nn

from rsconvert.compatibility.exactness import check_training, exact_in_batches
from rsconvert.compatibility.table import FIVE, Row
from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.models import TORCHVISION, create_model, is_file_name
from rsconvert.surgery import ConversionReport, SwitchableModel, batchnorms, examine, fill_zeros, make_switchable, write

__all__ = ["all_names", "count", "family_of", "measure"]


def all_names() -> list[str]:
    """Return every timm name and every ``torchvision/NAME``; quantized ones are the same networks."""
    own = [name for name in torchvision.models.list_models() if not name.startswith("quantized_")]
    return [*timm.list_models(), *(TORCHVISION + name for name in own)]


def family_of(name: str) -> str:
    """Return the library's file that defines an architecture; a name that no library lists is its own family."""
    if name.startswith(TORCHVISION):
        module = str(torchvision.models.get_model_builder(name.removeprefix(TORCHVISION)).__module__)
        return TORCHVISION + module.removeprefix("torchvision.models.").replace(".", "/")
    plain = name.partition(".")[0]
    return str(timm.models.model_entrypoint(plain).__module__).rpartition(".")[2] if timm.is_model(plain) else name


def count(name: str) -> Row:
    """Return the parameters and BatchNorms of a model, built without data where its builder allows it."""
    try:  # a function of a file may do anything with its data
        with nullcontext() if is_file_name(name) else torch.device("meta"):
            model = create_model(name)
    except UnsupportedModelError:  # some builders compute with their tensors
        model = create_model(name)
    size, distinct = sum(p.numel() for p in model.parameters()), {id(bn) for bn in batchnorms(model).values()}
    return Row(name=name, family=family_of(name), parameters=size, batchnorms=len(distinct))


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
    seconds: dict[str, float] = {}
    with _timed(seconds, "create"):
        model = create_model(name)
    try:
        write(model, fill_zeros(model))
        net, refused = _convert(model)
    except (UnsupportedModelError, ResolutionError) as error:
        return replace(row, error=str(error), seconds=seconds)
    assert net.report is not None
    sides, way = net.resolutions, net.report.built_with
    batches: dict[int, bool] = {}
    if in_batches:
        with _timed(seconds, "batches"):
            three = make_switchable(model, sorted({sides[0], sides[len(sides) // 2], sides[-1]}))
            batches = exact_in_batches(three, lambda r: _source_at(r, copy.deepcopy(model), three, name, way))
    with _timed(seconds, "training"):
        training = check_training(_source_at(sides[-1], model, net, name, way), net, sides[-1])
    row = replace(row, batches={str(r): same for r, same in batches.items()}, training=asdict(training))
    return _reported(row, net.report, refused, seconds)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] = round(time.perf_counter() - start, 3)


def _convert(model: nn.Module) -> tuple[SwitchableModel, dict[int, str]]:
    """Return the network at the five resolutions, or else at all that work, and why the rest does not."""
    try:
        return make_switchable(model, FIVE), {}
    except ResolutionError:
        candidates = sorted({*FIVE, *range(32, 321, 32)}, reverse=True)
        refused = examine(model, candidates).refused
        working = [r for r in candidates if r not in refused]
        if not working:
            raise
        return make_switchable(model, working), {r: refused[r] for r in FIVE if r in refused}


def _reported(row: Row, report: ConversionReport, refused: dict[int, str], seconds: dict[str, float]) -> Row:
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
        seconds={**{part: round(took, 3) for part, took in report.seconds.items()}, **seconds},
    )


def _source_at(resolution: int, model: nn.Module, net: SwitchableModel, name: str, way: str | None) -> nn.Module:
    """Return the ordinary model for a resolution: built again, if need be, independently of the conversion."""
    if way is None:
        return model
    source = create_model(name, model_kwargs={way: resolution if way == "img_size" else True})
    source.load_state_dict(net.at(resolution).state_dict())
    return source
