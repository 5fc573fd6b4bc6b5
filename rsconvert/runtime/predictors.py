"""What predicts photos: one path of a network, its cascade, or an ONNX file, each as a function of uint8 views."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from rsconvert.data import Preprocessing, crop_shares, normalize
from rsconvert.errors import CheckpointError, ConfigError, ResolutionError, UnsupportedModelError
from rsconvert.evaluation import (
    Amp,
    autocast,
    check_colours,
    check_logits,
    choose_precision,
    float_dtype,
)
from rsconvert.export import Export, open_onnx
from rsconvert.models import output_names
from rsconvert.runtime.budget import resolution_for_budget
from rsconvert.runtime.cascade import Cascade, CascadeOutput
from rsconvert.surgery import SwitchableModel, check_resolutions
from rsconvert.text import parse_json

__all__ = ["Predictor", "cascade_predictor", "chosen_resolution", "onnx_predictor", "path_predictor"]


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A function of uint8 views, and how these are cut.

    Attributes:
        run: views (N, C, r, r), one batch for each of ``sizes`` → logits (N, classes), and the resolution of each (N,).
        sizes: the views that each image needs, in pixels.
        crop_pct: one number per size.
        channels: C, of the views.
        names: those of the outputs, None if they are unknown.
        outputs: among which it predicts, None for all.
        modules: the networks that must be in eval mode while it runs.
    """

    run: Callable[[Sequence[Tensor]], CascadeOutput]
    sizes: tuple[int, ...]
    crop_pct: tuple[float, ...]
    interpolation: str
    channels: int
    names: Mapping[int, str] | None = None
    outputs: tuple[int, ...] | None = None
    modules: tuple[nn.Module, ...] = ()


def path_predictor(net: SwitchableModel, resolution: int, amp: Amp = None) -> Predictor:
    """Return the path of a resolution as a predictor, on the network's device.

    Raises:
        ResolutionError: the network can't be built for the resolution.
        DataError, UnsupportedModelError: it takes images of neither colours nor grey, or has no class for each image.
        ConfigError: the precision is unusable.
    """
    path, images, precision = net.at(resolution), _images(net), _precision(net, amp)

    def run(views: Sequence[Tensor]) -> CascadeOutput:
        with precision():
            logits = check_logits(path(images(views[0])), net.source.task)
        return CascadeOutput(logits, torch.full((len(logits),), resolution))

    return _of_network(net, run, (resolution,))


def cascade_predictor(net: SwitchableModel, amp: Amp = None) -> Predictor:
    """Return the cascade that is stored with a network as a predictor, with a view for each stage.

    Raises:
        ConfigError: none is stored, or the precision is unusable.
        DataError, UnsupportedModelError: as of `path_predictor`.
    """
    cascade, images, precision = Cascade.stored(net), _images(net), _precision(net, amp)

    def run(views: Sequence[Tensor]) -> CascadeOutput:
        with precision():
            return cascade([images(view) for view in views])

    outputs = (net.measured.cascade or {}).get("outputs")
    return _of_network(net, run, cascade.stages, None if outputs is None else tuple(outputs))


def onnx_predictor(path: str | PathLike[str], resolution: int | None = None) -> Predictor:
    """Return an ONNX file that ``export`` wrote as a predictor, by ONNX Runtime on the CPU.

    Args:
        resolution: in pixels; None takes the largest trained one, or the one that the file is bound to.
    Raises:
        CheckpointError: the file is broken, or says nothing of its preprocessing.
        ResolutionError: it takes another size alone.
        ConfigError: ONNX Runtime is not installed, or the file is bound to a number of images.
        UnsupportedModelError: it gives masks.
    """
    file = open_onnx(path)
    trained, how, names = _facts(file, path)
    side = check_resolutions([(*file.bound, trained[0])[0] if resolution is None else resolution])[0]
    if file.bound and set(file.bound) != {side}:
        raise ResolutionError(
            f"{path} takes images of {file.bound[0]} pixels alone, not of {side}. Leave the resolution out, or "
            "export a file for all sizes: rsconvert export CHECKPOINT --format onnx."
        )
    if isinstance(file.batch, int):
        raise ConfigError(f"{path} takes batches of {file.batch} images alone; any number is needed. Export it again.")

    def run(views: Sequence[Tensor]) -> CascadeOutput:
        found = file.run(normalize(views[0], how))
        if found.ndim == 4:
            raise UnsupportedModelError(
                f"{path} gives a class for each position; names are predicted of one class for each image. Give the "
                "network itself, whose masks are written: rsconvert predict NETWORK PHOTO -o FOLDER."
            )
        logits = check_logits(found)
        return CascadeOutput(logits, torch.full((len(logits),), side))

    return Predictor(
        run=run,
        sizes=(side,),
        crop_pct=crop_shares(how, trained, [side]),
        interpolation=how.interpolation,
        channels=how.channels,
        names=names,
    )


def chosen_resolution(
    net: SwitchableModel, resolution: int | None, latency_ms: float | None = None, amp: Amp = None
) -> int:
    """Return a resolution in pixels: the given one, the best within a latency, else the native one.

    Raises:
        ConfigError, ResolutionError: as of `resolution_for_budget`, or both are given.
    """
    if resolution is not None and latency_ms is not None:
        raise ConfigError(f"resolution is {resolution}, latency_ms {latency_ms}; one of them chooses. Leave one out.")
    if latency_ms is not None:
        return resolution_for_budget(net, latency_ms=latency_ms, amp=amp)
    return net.native if resolution is None else check_resolutions([resolution])[0]


def _images(net: SwitchableModel) -> Callable[[Tensor], Tensor]:
    """Return a function of uint8 images (N, C, r, r) that gives them as the network takes them."""
    check_colours(net)
    if net.source.task.dense:
        raise UnsupportedModelError(
            "the network gives a class for each position; predict names one for each image. Use "
            "rsconvert.runtime.predict_masks."
        )
    device, dtype, how = net.alpha.device, float_dtype(net), net.source.preprocessing
    return lambda view: normalize(view.to(device, non_blocking=True), how, dtype=dtype)


def _precision(net: SwitchableModel, amp: Amp) -> Callable[[], torch.autocast]:
    device = net.alpha.device
    return partial(autocast, device, choose_precision(amp, device))


def _of_network(
    net: SwitchableModel,
    run: Callable[[Sequence[Tensor]], CascadeOutput],
    sizes: tuple[int, ...],
    outputs: tuple[int, ...] | None = None,
) -> Predictor:
    how = net.source.preprocessing
    return Predictor(
        run=run,
        sizes=sizes,
        crop_pct=crop_shares(how, net.resolutions, sizes),
        interpolation=how.interpolation,
        channels=how.channels,
        names=None if (names := output_names(net.source)) is None else dict(enumerate(names)),
        outputs=outputs,
        modules=(net,),
    )


def _facts(file: Export, path: str | PathLike[str]) -> tuple[tuple[int, ...], Preprocessing, dict[int, str] | None]:
    """Return the resolutions, the preprocessing and the names of the classes that a file says of itself."""
    try:
        how = Preprocessing(
            mean=_json(file.facts, "mean"),
            std=_json(file.facts, "std"),
            interpolation=file.facts["interpolation"],
            crop_pct=_json(file.facts, "crop_pct"),
        )
        names = _json(file.facts, "class_names") if "class_names" in file.facts else None
        trained = check_resolutions(_json(file.facts, "resolutions"))
        crop_shares(how, trained, trained)  # which checks their number
        return trained, how, None if names is None else dict(enumerate(map(str, names)))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not say how its images are prepared ({type(error).__name__}: {error}); an ONNX file that "
            "rsconvert export wrote is needed. Export it again."
        ) from error


def _json(facts: Mapping[str, str], name: str) -> Any:
    return parse_json(facts[name])
