"""calibrate: BN statistics of each resolution from images without labels."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm.auto import tqdm

from rsconvert.calibration.statistics import Estimator, MovingAverage, Population, normalizing_by_batch
from rsconvert.data import Samples, ViewLoader, normalize, open_images, postponed_interrupts, without_broken
from rsconvert.errors import (
    ConfigError,
    DataError,
    ResolutionError,
    RSConvertError,
    TrainingError,
    UnsupportedModelError,
    first_line,
)
from rsconvert.evaluation import (
    check_colours,
    choose_device,
    float_dtype,
    is_memory_error,
    plain_memory_errors,
    validation_loader,
)
from rsconvert.surgery import SwitchableModel, batchnorms, check_resolutions, eval_mode

__all__ = ["CalibrationReport", "Form", "calibrate"]

Form = Literal["population", "momentum"]
_Watched = dict[str, tuple[Any, Estimator]]


@dataclass(frozen=True)
class CalibrationReport:
    """How many images gave statistics, and at each resolution to how many BatchNorms.

    ``left`` gives the reason why others, and private tensors of other layers, kept what they had.
    """

    images: int
    form: str
    resolutions: dict[int, int]
    left: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the resolutions as strings."""
        return {**vars(self), "resolutions": {str(r): number for r, number in self.resolutions.items()}}

    def __str__(self) -> str:
        sets = ", ".join(f"{number} at {r}" for r, number in self.resolutions.items())
        left = "".join(f"\nleft as it was: {name}, {reason}" for name, reason in self.left.items())
        return f"BatchNorms with new statistics ({self.form}) from {self.images} images: {sets}{left}"


@torch.no_grad()
def calibrate(
    net: SwitchableModel,
    data: str | Path | Samples,
    resolutions: Sequence[int] | None = None,
    *,
    images: int = 1000,
    form: Form = "population",
    layers: Sequence[str] | None = None,
    batch_size: int = 64,
    workers: int = 2,
    device: str | torch.device | None = None,
    seed: int = 0,
    data_root: str | None = None,
    skip_broken: int = 0,
    progress: bool = False,
) -> CalibrationReport:
    """Give BN sets the statistics of images, which need no labels (Wu & Johnson 2021, Sec. 3).

    Every image is decoded once, and cropped or resized for each resolution as in evaluation. Each BatchNorm normalizes
    a batch by the batch's own statistics, as in training, while all else is in eval mode. μ and σ² become those of all
    values it received: mean and biased variance over the N·H·W positions of all batches, in float64. No other tensor
    changes, the batch counts included, nor the network's modes.

    Args:
        data: a folder of images, of whose ``train/`` if it has one, a timm data-set string, or opened samples.
        resolutions: trained ones; None takes all but the native one, whose statistics are those of its training.
        images: how many to draw at random, by ``seed``; all, if there are fewer.
        form: ``population``; or ``momentum``: each BatchNorm's own running average, from its present values on.
        layers: names of the BatchNorms that take part, such as the last one alone; None takes them all.
        batch_size: the largest number of images in a batch; batches are made nearly equal.
        device: where to compute, and where the network stays; None takes a GPU if there is one.
        skip_broken: how many of those drawn may be left out because they can't be read, see ``without_broken``.
    Raises:
        ConfigError, ResolutionError: a setting is unusable; a resolution has no BN set of its own.
        DataError: there are no images, one can't be read, or the network takes neither colours nor grey.
        UnsupportedModelError: the network does not run on images, or no BatchNorm keeps statistics.
        TrainingError: a statistic is not finite or undefined; memory ran out. The network is as it was.
    """
    asked, where = _asked(net, resolutions), choose_device(device)
    _check(form, images=images, batch_size=batch_size)
    check_colours(net)
    samples = open_images(str(data), root=data_root) if isinstance(data, str | Path) else data
    (chosen,) = without_broken([_drawn(samples, images, seed)], skip_broken, workers=workers)
    with plain_memory_errors(batch_size, workers), postponed_interrupts() as check:
        net.to(where)
        watched = {r: _watched(net.at(r), form, layers) for r in asked}
        size = math.ceil(len(chosen) / math.ceil(len(chosen) / batch_size))  # a small last batch has poor statistics
        with closing(validation_loader(net, chosen, asked, batch_size=size, workers=workers)) as loader:
            _run(net, watched, loader, progress, check)
    return CalibrationReport(len(chosen), form, _write(watched), _left(net, watched))


def _asked(net: SwitchableModel, resolutions: Sequence[int] | None) -> tuple[int, ...]:
    if not net.private:
        raise ResolutionError(
            "the network has one BN set for all resolutions; each needs its own. Convert it with private=True."
        )
    asked = net.resolutions[1:] if resolutions is None else check_resolutions(resolutions)
    if not asked:
        raise ResolutionError(
            f"the network has the native resolution {net.native} alone, which is left as it is unless resolutions "
            "names it."
        )
    if wrong := [r for r in asked if r not in net.resolutions]:
        raise ResolutionError(
            f"resolution {wrong[0]} was not trained and has no BN set; {net.resolutions} are accepted."
        )
    return asked


def _check(form: str, **numbers: int) -> None:
    if form not in get_args(Form):
        raise ConfigError(f"form is {form!r}; {', '.join(get_args(Form))} are accepted.")
    for name, value in numbers.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}; at least 1 is needed.")


def _drawn(samples: Samples, images: int, seed: int) -> Samples:
    """Return samples in random order: in that of their classes, a batch would be of one class."""
    if len(samples) == 0:
        raise DataError("the data holds no images; statistics need at least one.")
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    return samples.subset(order[:images].tolist())


def _watched(path: nn.Module, form: str, layers: Sequence[str] | None) -> _Watched:
    """Return the BatchNorms of a path that keep statistics, each with an estimator; each BatchNorm once."""
    found: _Watched = {}
    named = batchnorms(path)
    if unknown := [name for name in layers or () if name not in named]:
        raise ConfigError(f"layers has {unknown[0]}, which is no BatchNorm; such as {next(iter(named))} are accepted.")
    for name, bn in {id(bn): (name, bn) for name, bn in reversed(named.items())}.values():
        if _reason(bn) is None and (layers is None or name in layers):
            found[name] = bn, Population() if form == "population" else MovingAverage(bn)
    return found


def _run(
    net: SwitchableModel,
    watched: Mapping[int, _Watched],
    loader: ViewLoader,
    progress: bool,
    check: Callable[[], None],
) -> None:
    """Run each path on the images while its BatchNorms are watched."""
    dtype = float_dtype(net)
    paths = {r: net.at(r) for r in watched}
    with eval_mode(paths.values()), ExitStack() as stack:
        for r, found in watched.items():
            for name, (bn, estimator) in found.items():
                stack.enter_context(normalizing_by_batch(bn, f"{name} at {r}", estimator))
        for views, _ in tqdm(loader, desc="calibrate", unit="batch", disable=not progress, leave=False):
            for (r, path), view in zip(paths.items(), views, strict=True):
                here = view.to(net.alpha.device, non_blocking=True)
                _forward(path, normalize(here, net.source.preprocessing, dtype=dtype), r)
            check()


def _forward(path: nn.Module, image: Tensor, resolution: int) -> None:
    try:
        path(image)
    except Exception as error:  # whatever the model's own code raises
        if isinstance(error, RSConvertError) or is_memory_error(error):
            raise
        raise UnsupportedModelError(
            f"the network fails on images of {resolution} ({type(error).__name__}: {first_line(error)}); one that "
            "takes images (N, 3, H, W) is needed. Check the model."
        ) from error


def _write(watched: Mapping[int, _Watched]) -> dict[int, int]:
    """Write all estimates, or none if one is bad; return how many BatchNorms each resolution has of them."""
    values = {r: _values(found, r) for r, found in watched.items()}
    for found in values.values():
        for bn, mean, variance in found:
            bn.running_mean.copy_(mean)
            bn.running_var.copy_(variance)
    return {r: len(found) for r, found in values.items()}


def _values(found: _Watched, resolution: int) -> list[tuple[Any, Tensor, Tensor]]:
    """Return what each BatchNorm that ran is to have."""
    values = []
    for name, (bn, estimator) in found.items():
        if not estimator.batches:
            continue
        mean, variance = (v.to(bn.running_var.dtype) for v in (estimator.mean, estimator.variance))
        if not torch.isfinite(torch.stack([mean, variance])).all():
            raise TrainingError(
                f"{name} at {resolution} gets values that are not finite, or its statistics are none in "
                f"{mean.dtype}; finite ones are needed. Check the weights, or compute in float32."
            )
        values.append((bn, mean, variance))
    if not values:
        raise UnsupportedModelError(
            f"no BatchNorm with statistics ran at {resolution}; at least one is needed. Check the model."
        )
    return values


def _left(net: SwitchableModel, watched: Mapping[int, _Watched]) -> dict[str, str]:
    """Return the private tensors that keep what they had, each with the reason."""
    bns = {name: _reason(bn) for name, bn in batchnorms(net.at(next(iter(watched)))).items()}
    left = {name: reason for name, reason in bns.items() if reason is not None}
    idle = (name for found in watched.values() for name, (_, estimator) in found.items() if not estimator.batches)
    left |= dict.fromkeys(idle, "it did not run")
    return left | dict.fromkeys(net.other_private_tensors(), "it is no BatchNorm's")


def _reason(bn: nn.Module) -> str | None:
    """Return why a BatchNorm can't be calibrated; None if it can."""
    if not isinstance(bn, _BatchNorm):
        return "it is written by hand" if any(True for _ in bn.parameters()) else "it is frozen"
    return "it keeps no statistics" if bn.running_mean is None else None
