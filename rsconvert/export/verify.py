"""verify_export: does an export compute what the network computes, at every size that both take?"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from rsconvert.data import Samples, normalize, open_images
from rsconvert.errors import ConfigError, DataError, ResolutionError, UnsupportedModelError, first_line
from rsconvert.evaluation import check_colours, float_dtype, validation_loader
from rsconvert.export.agreement import Agreement, Verification, compare
from rsconvert.export.opening import Export, open_export
from rsconvert.models import example_input
from rsconvert.surgery import (
    SwitchableModel,
    check_resolutions,
    eval_mode,
    interpolation_weights,
    side_of,
    with_middles,
)

__all__ = ["logits_of", "verify_export"]

_Size = tuple[int, int]
_BATCHES = (1, 5)


@torch.no_grad()
def verify_export(
    export: Export | str | Path,
    net: SwitchableModel,
    resolutions: Sequence[int] | None = None,
    *,
    data: str | Path | Samples | None = None,
    images: int = 200,
    tolerance: float = 1e-4,
) -> Verification:
    """Compare an export with ``net(x)`` at each size, on random images in batches of 1 and 5, and on real ones.

    Args:
        export: a file or folder, or what ``open_export`` made of it.
        resolutions: in pixels; None takes the one that the export is bound to, else the trained ones, the middle of
            each two neighbours, and, of an ONNX file with branches, theirs and one more. Where an export takes any
            height and width, an oblong image is added.
        data: a folder of images, of whose ``train/`` if it has one, a timm data-set string, or opened samples.
        images: how many of the data to draw at random; all, if there are fewer.
        tolerance: the largest relative difference that passes. Images less than tenfold above it are compared with
            the network in double precision, for a network may amplify PyTorch's own rounding.
    Raises:
        CheckpointError, ConfigError: as `open_export`; a setting is unusable.
        ResolutionError: the export or the network does not take a resolution.
        UnsupportedModelError: the network gives something else than one tensor.
        DataError: there are no images, or the network does not take them.
    """
    if not tolerance > 0 or images < 1:
        raise ConfigError(f"tolerance is {tolerance}, images {images}; both must be above 0. Change them.")
    opened = export if isinstance(export, Export) else open_export(export, net)
    rows: dict[_Size, Agreement] = {}
    exact = partial(_in_float64, net)
    with eval_mode([net, *map(net.at, net.resolutions)]):
        for size in _sizes(opened, net, resolutions):
            # The network need not take a size that nobody named.
            named = size[0] == size[1] and (
                resolutions or opened.bound or size[0] in {*net.resolutions, *opened.branches}
            )
            for x in _random_images(opened, net, size):
                try:
                    expected = logits_of(net, x)
                except ResolutionError:
                    if named:
                        raise
                    break
                rows[size] = rows.get(size, Agreement()) + compare(opened.run, x, expected, tolerance, exact)
        if data is not None:
            for size, x in _real_images(opened, net, [h for h, w in rows if h == w], data, images):
                rows[size] += compare(opened.run, x, net(x), tolerance, exact)
    return Verification(tolerance, {f"{h}" if h == w else f"{h}x{w}": row for (h, w), row in rows.items()})


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
            f"resolutions is {asked}; the export holds one path and does not tell which, so one resolution is needed. "
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
    """Return what a network gives for images (N, C, H, W): one tensor (N, classes, …).

    Raises:
        ResolutionError: it does not take the size.
        UnsupportedModelError: it gives something else.
    """
    try:
        logits = net(x)
    except Exception as error:  # whatever the model's own code raises
        raise ResolutionError(
            f"resolution {x.shape[-1]} does not work in the network ({first_line(error)}); one that does is needed. "
            "Choose another one, as a rule a larger one or a multiple of 32."
        ) from error
    if isinstance(logits, Tensor) and logits.ndim > 1:
        return logits
    raise UnsupportedModelError(
        f"the network gives a {type(logits).__name__}; one tensor (N, classes, …) can be compared. Wrap the model."
    )


def _in_float64(net: SwitchableModel, x: Tensor) -> Tensor | None:
    path = net.extract(side_of(x)).double()
    try:
        return cast(Tensor, path(x.double()))
    except RuntimeError:  # a model may fix the precision of some of its tensors
        return None


def _real_images(
    export: Export, net: SwitchableModel, sides: Sequence[int], data: str | Path | Samples, images: int
) -> Iterator[tuple[_Size, Tensor]]:
    """Yield batches of images as the network sees them at each resolution."""
    check_colours(net)
    samples = open_images(str(data)) if isinstance(data, str | Path) else data
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:images].tolist()
    fixed = isinstance(export.batch, int)
    batch = int(export.batch) if fixed else _BATCHES[-1]
    if len(order) < (batch if fixed else 1):
        raise DataError(f"the data holds {len(order)} images; the export takes {batch} at once. Add images.")
    dtype = float_dtype(net)
    with closing(validation_loader(net, samples.subset(order), sides, batch_size=batch, workers=0)) as loader:
        for views, target in loader:
            if len(target) == batch or not fixed:
                for side, view in zip(sides, views, strict=True):
                    yield (side, side), normalize(view.contiguous(), net.source.preprocessing, dtype=dtype)
