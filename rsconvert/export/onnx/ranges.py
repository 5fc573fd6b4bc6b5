"""quantize: the ranges of all activations at each resolution, measured on images, which int8 files are made from."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from rsconvert.data import Samples, ViewLoader, normalize, open_images, postponed_interrupts, without_broken
from rsconvert.errors import ConfigError, DataError, UnsupportedModelError
from rsconvert.evaluation import check_colours, float_dtype, plain_memory_errors, validation_loader
from rsconvert.export.onnx.correction import Shifts, apply_shifts, measure_shifts
from rsconvert.export.onnx.plain_graphs import PlainGraphs, check_dtypes
from rsconvert.export.onnx.quantized import QUANTIZED, Ranges, check_quantizable, equal_integers, quantized
from rsconvert.export.onnx.rounding import with_rounded_weights
from rsconvert.export.opening import needed
from rsconvert.surgery import SwitchableModel, eval_mode, interpolation_weights

__all__ = ["Int8Report", "quantize", "ranges_at"]


@dataclass(frozen=True)
class Int8Report:
    """What int8 files will be made from.

    ``images`` gave the ranges of ``activations`` tensors at each of the resolutions. Of ``weights`` in int8, ``equal``
    are the same integer at all resolutions; the others belong to filters whose γ changes its sign, or is 0.
    """

    images: int
    resolutions: tuple[int, ...]
    activations: int
    weights: int
    equal: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def __str__(self) -> str:
        sides = ", ".join(map(str, self.resolutions))
        same = f", {self.equal:,} of them the same at all resolutions" if len(self.resolutions) > 1 else ""
        return (
            f"ranges of {self.activations:,} activations at {sides}, from {self.images:,} images\n"
            f"{self.weights:,} weights in int8{same}"
        )


@torch.no_grad()
def quantize(
    net: SwitchableModel,
    data: str | Path | Samples,
    *,
    images: int = 200,
    batch_size: int = 16,
    workers: int = 2,
    seed: int = 0,
    data_root: str | None = None,
    skip_broken: int = 0,
    progress: bool = False,
) -> Int8Report:
    """Measure the ranges of all activations at each trained resolution, and keep them in ``net.measured``.

    Images need no labels and are cropped for each resolution as in evaluation; ONNX Runtime's calibration runs on the
    folded paths, with weights already rounded to 8 bits. How that moves the mean of each BatchNorm's input is measured
    before and kept as well: an int8 file corrects it. No value of the network changes.

    Args:
        data: a folder of images, of whose ``train/`` if it has one, a timm data-set string, or opened samples.
        images: how many to draw at random, by ``seed``; all, if there are fewer.
        skip_broken: how many of those drawn may be left out because they can't be read, see ``without_broken``.
    Raises:
        ConfigError: a setting is unusable, or the extra ``onnx`` is not installed.
        DataError: there are no images, one can't be read, or the network takes neither colours nor grey.
        UnsupportedModelError: the network can't be exported for any size, or has nothing to quantize.
    """
    if images < 1 or batch_size < 1:
        raise ConfigError(f"images is {images}, batch_size {batch_size}; both must be above 0.")
    check_colours(net)
    check_dtypes(net)
    samples = open_images(str(data), root=data_root) if isinstance(data, str | Path) else data
    (chosen,) = without_broken([_drawn(samples, images, seed)], skip_broken, workers=workers)
    with eval_mode([net, *map(net.at, net.resolutions)]), plain_memory_errors(batch_size, workers):
        rounded = with_rounded_weights(net).cpu()
        graphs = PlainGraphs(rounded)
        check_quantizable(graphs.at(net.native))
        with (
            closing(validation_loader(net, chosen, batch_size=batch_size, workers=workers)) as loader,
            postponed_interrupts() as check,
        ):
            batches = partial(_batches, net, loader, progress, check)
            shifts = _corrected(net, rounded, batches())
            models = {side: graphs.at(side) for side in net.resolutions}
            ranges = _ranges(models, batches())
    made = [quantized(model, ranges[side]) for side, model in models.items()]
    stored = {str(side): {name: list(ends) for name, ends in found.items()} for side, found in ranges.items()}
    net.measured = replace(net.measured, int8={"images": len(chosen), "ranges": stored, "shifts": shifts})
    equal, weights = equal_integers(made)
    return Int8Report(len(chosen), net.resolutions, len(ranges[net.native]), weights, equal)


def ranges_at(net: SwitchableModel, resolution: int) -> Ranges:
    """Return the ranges of the activations at a resolution; those of one that was not trained are interpolated.

    Raises:
        ConfigError: the network holds no ranges.
    """
    held = net.measured.int8
    if held is None:
        raise ConfigError(
            "int8 needs the ranges of the activations, and the network holds none; they fall with each change of a "
            "value. Measure them: rsconvert quantize CHECKPOINT --data DIR."
        )
    weights = zip(net.resolutions, interpolation_weights(resolution, net.resolutions), strict=True)
    parts = [(held["ranges"][str(side)], weight) for side, weight in weights if weight > 0]
    low, high = ({n: sum(part[n][end] * w for part, w in parts) for n in parts[0][0]} for end in (0, 1))
    return {name: (low[name], high[name]) for name in low}


def _drawn(samples: Samples, images: int, seed: int) -> Samples:
    if len(samples) == 0:
        raise DataError("the data holds no images; ranges need at least one.")
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    return samples.subset(order[:images].tolist())


def _corrected(net: SwitchableModel, rounded: SwitchableModel, batches: Iterable[Mapping[int, Tensor]]) -> Shifts:
    """Measure what rounding moves, take it off again in place, and return it."""
    exact = net if net.alpha.device.type == "cpu" else copy.deepcopy(net).cpu()
    shifts = measure_shifts(exact, rounded, batches)
    apply_shifts(rounded, shifts)
    return shifts


def _ranges(
    models: Mapping[int, Any], batches: Iterable[Mapping[int, Tensor]]
) -> dict[int, dict[str, tuple[float, float]]]:
    with _calibrators(models) as calibrators:
        for images in batches:
            for side, calibrator in calibrators.items():
                calibrator.collect_data(_Batch(images[side]))
        return {side: _finite(calibrator.compute_data().data, side) for side, calibrator in calibrators.items()}


def _batches(
    net: SwitchableModel, loader: ViewLoader, progress: bool, check: Callable[[], None]
) -> Iterator[dict[int, Tensor]]:
    """Yield normalized images by resolution."""
    for views, _ in tqdm(loader, desc="quantize", unit="batch", disable=not progress, leave=False):
        images = [normalize(v.contiguous(), net.source.preprocessing, dtype=float_dtype(net)) for v in views]
        yield dict(zip(net.resolutions, images, strict=True))
        check()


@contextmanager
def _calibrators(models: Mapping[int, Any]) -> Iterator[dict[int, Any]]:
    """Yield ONNX Runtime's calibration of each model, which watches the smallest and largest values."""
    onnx, create = needed("onnx"), needed("onnxruntime.quantization.calibrate").create_calibrator
    with TemporaryDirectory() as folder:
        for side, model in models.items():
            onnx.save(model, f"{folder}/{side}.onnx")
        yield {
            side: create(f"{folder}/{side}.onnx", list(QUANTIZED), augmented_model_path=f"{folder}/{side}.watched.onnx")
            for side in models
        }


class _Batch:
    """A batch as ONNX Runtime's calibration asks for its data."""

    def __init__(self, images: Tensor) -> None:
        self._left: Sequence[Any] = [{"images": images.numpy()}]

    def get_next(self) -> Any:
        batch = next(iter(self._left), None)
        self._left = ()
        return batch


def _finite(found: Mapping[str, Any], side: int) -> dict[str, tuple[float, float]]:
    ranges = {}
    for name, values in found.items():
        low, high = (float(f"{float(end.min()):.6g}") for end in values.range_value)
        if not (abs(low) < float("inf") and abs(high) < float("inf")):  # nor NaN
            raise UnsupportedModelError(
                f"{name} at {side} reaches from {low} to {high}; finite values are needed. Check the weights."
            )
        ranges[name] = low, high
    return ranges
