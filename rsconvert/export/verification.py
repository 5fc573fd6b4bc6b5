"""Verification: does an export compute what the network computes, at every size that both take?"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from rsconvert.data import Samples, normalize, open_images
from rsconvert.errors import CheckpointError, ConfigError, DataError, ResolutionError, UnsupportedModelError, first_line
from rsconvert.evaluation import check_colours, float_dtype, size_name, validation_loader, wilson_interval
from rsconvert.export.logits import logits_in
from rsconvert.export.opening import Export, open_export
from rsconvert.models import Task, example_input
from rsconvert.surgery import (
    SwitchableModel,
    check_resolutions,
    eval_mode,
    interpolation_weights,
    side_of,
    with_middles,
)
from rsconvert.text import Table

__all__ = ["Agreement", "Verification", "compare", "logits_of", "verify_export"]

TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "int8": 2.0}
"""The relative difference that is accepted of each precision; of int8, on noise, only what is no rounding is not."""
ALIKE = {"float16": 99.0, "int8": 90.0}
"""Of these, the share of photos in percent that must get the network's own class."""

_Size = tuple[int, int]
_BATCHES = (1, 5)
_ROUNDING = 10  # times the tolerance: no rounding goes so far in a network of use


@dataclass(frozen=True)
class Agreement:
    """How an export agrees with the network at one size.

    ``difference`` is the largest, over images, of max |export - network| / max |network|. Of ``clear`` predictions,
    where the network's two best logits differ by more than the tolerance in that unit, ``agreeing`` are the same.
    ``float64`` images were compared with the network in double precision. Of all predictions for ``photos``, ``alike``
    are those of the network, clear or not. ``failure`` says why the export gave no logits.
    """

    difference: float = 0.0
    images: int = 0
    clear: int = 0
    agreeing: int = 0
    float64: int = 0
    failure: str | None = None
    photos: int = 0
    alike: int = 0

    @property
    def cells(self) -> tuple[object, ...]:
        """The row of a table: images, difference, same class, note."""
        precise = f"{self.float64} compared in float64" if self.float64 else ""
        low, high = self.alike_interval or (0.0, 0.0)
        alike = f"{self.alike} of {self.photos} photos alike, {low:.1f} to {high:.1f} %" if self.photos else ""
        note = self.failure or ", ".join(filter(None, (precise, alike)))
        return self.images, f"{self.difference:.1e}", f"{self.agreeing} of {self.clear}", note

    @property
    def alike_interval(self) -> tuple[float, float] | None:
        """Wilson's interval, of 95 %, of the share of photos with the network's class, in percent."""
        return wilson_interval(self.alike, self.photos) if self.photos else None

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            max(self.difference, other.difference),
            self.images + other.images,
            self.clear + other.clear,
            self.agreeing + other.agreeing,
            self.float64 + other.float64,
            self.failure or other.failure,
            self.photos + other.photos,
            self.alike + other.alike,
        )


@dataclass(frozen=True)
class Verification:
    """The agreement at each size, named such as ``160`` or ``224x96``, and the verdict."""

    tolerance: float
    sizes: Mapping[str, Agreement]
    precision: str = "float32"

    @property
    def difference(self) -> float:
        """The largest relative difference of all sizes."""
        return max(row.difference for row in self.sizes.values())

    @property
    def passed(self) -> bool:
        """Whether no difference exceeds the tolerance, and all clear predictions agree; see ``ALIKE``, too."""
        return not self._wrong()

    def check(self, what: str) -> None:
        """Raise a CheckpointError unless the export agrees; ``what`` names it."""
        if not (wrong := self._wrong()):
            return
        row = self.sizes[wrong[0]]
        other = f", {row.photos - row.alike} of {row.photos} photos with another class" if row.photos else ""
        found = row.failure or f"difference {row.difference:.2g}, {row.clear - row.agreeing} other classes{other}"
        raise CheckpointError(
            f"{what} disagrees with the network at {', '.join(wrong)} ({wrong[0]}: {found}); a relative difference of "
            f"{self.tolerance:g} and equal classes are accepted. Give its own checkpoint, or export another format."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; a difference that is no number is None."""
        rows = {size: {**asdict(row), "difference": _finite(row.difference)} for size, row in self.sizes.items()}
        whole = {"passed": self.passed, "tolerance": self.tolerance, "difference": _finite(self.difference)}
        return {**whole, "resolutions": rows}

    def __str__(self) -> str:
        rows = [(size, *row.cells) for size, row in self.sizes.items()]
        titles = ("resolution", "images", "difference", "same class", "note")
        verdict = "agrees" if self.passed else "disagrees"
        note = f"{verdict}: largest relative difference {self.difference:.1e}; up to {self.tolerance:g} is accepted"
        return Table(titles, rows, note).filled().as_text()

    def _wrong(self) -> list[str]:
        rows = self.sizes.items()
        return [size for size, row in rows if self._is_wrong(row)]

    def _is_wrong(self, row: Agreement) -> bool:
        if row.difference > self.tolerance or row.agreeing < row.clear:
            return True
        _, highest = row.alike_interval or (0.0, 100.0)
        return highest < ALIKE.get(self.precision, 0.0)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


@torch.no_grad()
def verify_export(
    export: Export | str | PathLike[str],
    net: SwitchableModel,
    resolutions: Sequence[int] | None = None,
    *,
    data: str | PathLike[str] | Samples | None = None,
    images: int = 200,
    tolerance: float | None = None,
    native_code: bool = False,
) -> Verification:
    """Compare an export with ``net(x)`` at each size, on random images in batches of 1 and 5, and on real ones.

    Args:
        export: a file or folder, or what ``open_export`` made of it.
        resolutions: in pixels; None takes the one that the export is bound to, else the trained ones, the middle of
            each two neighbours, and, of an ONNX file with branches, theirs and one more. Where an export takes any
            height and width, an oblong image is added.
        data: a folder of images, of whose ``train/`` if it has one, a timm data-set string, or opened samples.
        images: how many of the data to draw at random; all, if there are fewer.
        tolerance: the largest relative difference that passes; None takes that of the export's precision. Images less
            than tenfold above it are compared with the network in double precision, for a network may amplify
            PyTorch's own rounding.
        native_code: run the library of a package of AOTInductor, see `open_export`.
    Raises:
        CheckpointError, ConfigError: as `open_export`; a setting is unusable.
        ResolutionError: the export or the network does not take a resolution.
        UnsupportedModelError: the network gives something else than one tensor.
        DataError: there are no images, or the network does not take them.
    """
    if (tolerance is not None and not tolerance > 0) or images < 1:
        raise ConfigError(f"tolerance is {tolerance}, images {images}; both must be above 0.")
    opened = export if isinstance(export, Export) else open_export(export, net, native_code=native_code)
    tolerance = TOLERANCES.get(opened.precision, TOLERANCES["float32"]) if tolerance is None else tolerance
    with eval_mode([net, *map(net.at, net.resolutions)]):
        rows = _on_random_images(opened, net, resolutions, tolerance)
        if data is not None:
            exact, run = partial(_in_float64, net), _logits_of_export(opened, net)
            photos = opened.precision in ALIKE
            for size, x in _real_images(opened, net, [h for h, w in rows if h == w], data, images):
                rows[size] += compare(run, x, logits_of(net, x), tolerance, exact, photos=photos)
    named = {size_name(h if h == w else (h, w)): row for (h, w), row in rows.items()}
    return Verification(tolerance, named, opened.precision)


def _on_random_images(
    opened: Export, net: SwitchableModel, resolutions: Sequence[int] | None, tolerance: float
) -> dict[_Size, Agreement]:
    rows: dict[_Size, Agreement] = {}
    run = _logits_of_export(opened, net)
    for size in _sizes(opened, net, resolutions):
        # The network need not take a size that nobody named.
        own = resolutions or opened.bound or size[0] in {*net.resolutions, *opened.branches}
        named = size[0] == size[1] and own
        for x in _random_images(opened, net, size):
            try:
                expected = logits_of(net, x)
            except ResolutionError:
                if named:
                    raise
                break
            found = compare(run, x, expected, tolerance, partial(_in_float64, net))
            rows[size] = rows.get(size, Agreement()) + found
    return rows


def _sizes(export: Export, net: SwitchableModel, resolutions: Sequence[int] | None) -> list[_Size]:
    asked = None if resolutions is None else check_resolutions(resolutions)
    if export.bound:
        if wrong := [r for r in asked or () if {r} != set(export.bound)]:
            raise ResolutionError(
                f"resolution {wrong[0]} is not that of the export, which is bound to {export.bound[0]}; that alone is "
                "accepted. Leave resolutions out."
            )
        return [(export.bound[0], export.bound[-1])]
    if export.plain and (asked is None or len(asked) != 1):
        raise ResolutionError(
            f"resolutions is {asked}; the export holds one path and does not say which, so one resolution is needed. "
            "Name it by --resolutions."
        )
    sides = asked or check_resolutions([*{*with_middles(net.resolutions), *export.branches}])
    more = () if asked else _unbranched(export, net, sides)
    oblong = [(sides[0], sides[-1])] if len(sides) > 1 and export.height != export.width else []
    return [(side, side) for side in sorted((*sides, *more), reverse=True)] + oblong


def _unbranched(export: Export, net: SwitchableModel, sides: Sequence[int]) -> Sequence[int]:
    """Return a size that no branch serves, where there are branches and one of the sides is no such size."""
    served = {interpolation_weights(side, net.resolutions) for side in export.branches}
    others = [side for side in with_middles(sides) if interpolation_weights(side, net.resolutions) not in served]
    return others[:1] if served and not set(others).intersection(sides) else ()


def _random_images(export: Export, net: SwitchableModel, size: _Size) -> Iterator[Tensor]:
    """Yield the same images at each call."""
    height, width = size
    generator = torch.Generator().manual_seed(1000 * height + width)
    for batch in _BATCHES if isinstance(export.batch, str) else (export.batch,):
        like = example_input(net, height, batch)
        yield torch.randn((*like.shape[:-1], width), generator=generator).to(like)


def logits_of(net: SwitchableModel, x: Tensor) -> Tensor:
    """Return the logits that a network gives for images (N, C, H, W): one tensor (N, classes, …); else raise."""
    try:
        output = net(x)
    except Exception as error:  # whatever the model's own code raises
        raise ResolutionError(
            f"resolution {x.shape[-1]} does not work in the network ({first_line(error)}); one that does is needed. "
            "Choose another one, as a rule a larger one or a multiple of 32."
        ) from error
    if isinstance(output, Tensor) and output.ndim > 1:
        return output
    if net.source.task != Task():
        return net.source.task.logits(output)
    raise UnsupportedModelError(
        f"the network gives a {type(output).__name__}; one tensor (N, classes, …) can be compared. Wrap the model, or "
        "name the output at its conversion."
    )


def _logits_of_export(export: Export, net: SwitchableModel) -> Callable[[Tensor], Tensor]:
    return lambda x: logits_in(export.run(x), net.source.task)


def _in_float64(net: SwitchableModel, x: Tensor) -> Tensor | None:
    path = net.extract(side_of(x)).double()
    try:
        output = path(x.double())
    except RuntimeError:  # a model may fix the precision of some of its tensors
        return None
    return output if isinstance(output, Tensor) else net.source.task.logits(output)


def _real_images(
    export: Export, net: SwitchableModel, sides: Sequence[int], data: str | PathLike[str] | Samples, images: int
) -> Iterator[tuple[_Size, Tensor]]:
    """Yield batches of images at each resolution, prepared as in evaluation."""
    check_colours(net)
    samples = data if isinstance(data, Samples) else open_images(str(data))
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:images].tolist()
    batch, least = (_BATCHES[-1], 1) if isinstance(export.batch, str) else (export.batch, export.batch)
    if len(order) < least:
        raise DataError(f"the data holds {len(order)} images; the export takes {batch} at once. Add images.")
    with closing(validation_loader(net, samples.subset(order), sides, batch_size=batch, workers=0)) as loader:
        for views, target in loader:
            if len(target) >= least:
                for side, view in zip(sides, views, strict=True):
                    yield (side, side), normalize(view.contiguous(), net.source.preprocessing, dtype=float_dtype(net))


def compare(
    run: Callable[[Tensor], Tensor],
    x: Tensor,
    expected: Tensor,
    tolerance: float,
    exact: Callable[[Tensor], Tensor | None] = lambda x: None,
    *,
    photos: bool = False,
) -> Agreement:
    """Compare what an export gives for images (N, C, H, W) with what the network gives, (N, classes, …).

    Args:
        exact: gives what the network gives in double precision, or None if it can't. Images whose difference is above
            the tolerance, yet not so far that rounding is out of question, are compared with that: where a network
            amplifies rounding, PyTorch's own may be the larger part.
        photos: count the predictions that are alike.
    """
    try:
        got = run(x)
    except Exception as error:  # whatever the software raises
        return Agreement(math.inf, len(x), failure=f"it fails: {first_line(error)}")
    if got.shape != expected.shape:
        return Agreement(math.inf, len(x), failure=f"it gives {tuple(got.shape)}, not {tuple(expected.shape)}")
    relative = _relative(got, expected)
    doubtful = (relative > tolerance) & (relative < _ROUNDING * tolerance)
    again = exact(x[doubtful]) if doubtful.any() else None
    if again is not None:
        relative[doubtful] = _relative(got[doubtful].double(), again).to(relative)
    clear, agreeing = _classes(got, expected, expected.flatten(1).abs().amax(1) * tolerance)
    counts = (got.argmax(1).numel(), int((got.argmax(1) == expected.argmax(1)).sum())) if photos else (0, 0)
    in_float64 = 0 if again is None else len(again)
    return Agreement(float(relative.max()), len(x), clear, agreeing, in_float64, None, *counts)


def _relative(got: Tensor, expected: Tensor) -> Tensor:
    """Return the largest difference of each image, by its largest logit."""
    scale = expected.flatten(1).abs().amax(1)
    errors = (got - expected).flatten(1).abs().amax(1)
    # Logits that are all zero, of a new classifier, have no scale.
    return (errors / scale.where(errors != 0, scale.new_ones(()))).nan_to_num(math.inf, math.inf)


def _classes(got: Tensor, expected: Tensor, gap: Tensor) -> tuple[int, int]:
    """Count the predictions that are clear, and those of them that agree."""
    if expected.shape[1] < 2:
        return 0, 0
    best = expected.topk(2, dim=1).values
    clear = (best[:, 0] - best[:, 1]) > gap.view(-1, *[1] * (expected.ndim - 2))
    return int(clear.sum()), int((clear & (got.argmax(1) == expected.argmax(1))).sum())
