"""Example inputs: what a model of any task takes at a resolution, read from the model itself."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.space_to_depth import SpaceToDepth
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.models.detection.transform import GeneralizedRCNNTransform

__all__ = [
    "Arguments",
    "Stem",
    "argument_names",
    "as_call",
    "example_arguments",
    "example_input",
    "example_stem",
    "positional_names",
    "receivers",
    "resizes_inside",
    "static_stem",
]

Arguments = tuple[Any, ...] | Mapping[str, Any]
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_CLIP = (16,)
# The place of a layer's weight, or of the vector of a BatchNorm, among its arguments, and the axis of its inputs.
_LAYERS: dict[Any, tuple[int, str, int]] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), (1, "weight", 1)),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), (1, "weight", 0)),
    F.linear: (1, "weight", 1),
    F.batch_norm: (1, "running_mean", 0),
    torch.batch_norm: (3, "running_mean", 0),
}
_GROUPED = (F.conv1d, F.conv2d, F.conv3d)


@dataclass(frozen=True)
class Stem:
    """The channels of an image, and the frames of a clip, (16,), or () for a single image."""

    channels: int = 3
    frames: tuple[int, ...] = ()


def example_arguments(
    model: nn.Module,
    resolution: int | tuple[int, int],
    batch: int = 1,
    *,
    image: int | str | None = None,
    stem: Stem | None = None,
) -> Arguments:
    """Return fixed random arguments for ``forward`` at a resolution, or a height and width: one image batch as a rule.

    A model that resizes inside takes a list of images, (C, resolution, resolution) each; one whose ``forward`` demands
    several arguments, as of optical flow, gets as many image batches. They are a tuple, or a dictionary of keyword
    arguments for a ``forward`` that takes its image by keyword alone; see ``as_call``.

    Args:
        image: the position or the name of a further argument that gets an image.
        stem: what the images are like; by default what ``example_stem`` finds.
    """
    images = _random(model, resolution, batch, stem or example_stem(model, resolution, image=image))
    return (list(images),) if resizes_inside(model) else _placed(model, image, images)


def example_input(model: nn.Module, resolution: int | tuple[int, int], batch: int = 1) -> Tensor:
    """Return a fixed random image batch (N, C, resolution, resolution) with the channels that the model takes.

    A network of 3d convolutions gets clips of 16 frames, (N, C, 16, resolution, resolution).
    """
    return _random(model, resolution, batch, example_stem(model, resolution))


def as_call(arguments: Arguments) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments: those of a tuple, or of a dictionary."""
    return ((), dict(arguments)) if isinstance(arguments, Mapping) else (tuple(arguments), {})


def receivers(model: nn.Module, image: int | str | None = None) -> list[inspect.Parameter]:
    """Return the parameters of ``forward`` that an example fills: those it demands, else its first one.

    Args:
        image: the position or the name of one more.
    """
    parameters = _parameters(model.forward)
    by_position = [p for p in parameters if p.kind in (*_POSITIONAL, p.VAR_POSITIONAL)]
    named = [p for p in parameters if p.kind in (*_POSITIONAL, p.KEYWORD_ONLY)]
    found = [p for p in named if p.default is p.empty] or (by_position or named)[:1]
    if isinstance(image, int) and 0 <= image < len(named):
        image = named[image].name
    if isinstance(image, str) and image.partition(".")[0] not in [p.name for p in found]:
        more = inspect.Parameter(image.partition(".")[0], inspect.Parameter.KEYWORD_ONLY)
        demanded = [p for p in found if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
        found = [*demanded, *([p for p in named if p.name == more.name] or [more])]
    return found


def argument_names(model: nn.Module) -> list[str] | None:
    """Return the names that ``forward`` takes; None if it takes any."""
    parameters = _parameters(model.forward)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.kind in (*_POSITIONAL, p.KEYWORD_ONLY)]


def positional_names(model: nn.Module) -> list[str]:
    """Return the names of the parameters of ``forward`` that a value by position reaches, in their order."""
    return [p.name for p in _parameters(model.forward) if p.kind in _POSITIONAL]


def resizes_inside(model: nn.Module) -> bool:
    """Return whether a model resizes its images itself, as torchvision's detectors do: their size sets no path."""
    return any(isinstance(child, GeneralizedRCNNTransform) for child in model.children())


def example_stem(model: nn.Module, resolution: int | tuple[int, int], *, image: int | str | None = None) -> Stem:
    """Return what the first layer takes that the input reaches; ``static_stem`` where no layer can be watched.

    An image of NaNs is followed to its first convolution, linear layer or BatchNorm, where the forward ends: no
    statistic moves, and all modules are in eval mode meanwhile. What a layer gets of three channels shows what lies
    before it, such as a fold of the pixels.
    """
    static = static_stem(model)
    if resizes_inside(model):
        return static

    def run(stem: Stem) -> None:
        args, kwargs = as_call(_placed(model, image, _random(model, resolution, 1, stem).fill_(torch.nan)))
        model(*args, **kwargs)

    training = [module for module in nn.Module.modules(model) if module.training]
    for module in training:  # a BatchNorm counts its batches before it normalizes one
        module.training = False
    try:
        tries = (_settled(run, start) for start in dict.fromkeys((Stem(3, static.frames), static)))
        return next((found for found in tries if found is not None), static)
    finally:
        for module in training:
            module.training = True


def static_stem(model: nn.Module) -> Stem:
    """Return the stem by the modules alone: the first convolution for colours or grey, else the first one."""
    folded, stems = 1, []
    for module in nn.Module.modules(model):
        if isinstance(module, SpaceToDepth):
            folded *= module.bs**2
        elif isinstance(module, nn.PixelUnshuffle):
            folded *= module.downscale_factor**2
        elif isinstance(module, (nn.Conv2d, nn.Conv3d)):
            stems.append(Stem(module.in_channels // folded, _CLIP if isinstance(module, nn.Conv3d) else ()))
    likely = [stem for stem in stems if stem.channels in (1, 3)]
    return next(iter(likely or stems), Stem())


def _parameters(forward: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):  # of compiled code
        return [inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)]


def _placed(model: nn.Module, image: int | str | None, batch: Tensor) -> Arguments:
    """Return the arguments of ``forward`` in which each receiver has the batch, all but the first flipped."""
    filled = receivers(model, image)
    name, *keys = image.split(".") if isinstance(image, str) else ("",)
    values: list[Any] = [batch, *(batch.flip(0, -1) for _ in filled[1:])]
    for place in (i for i, p in enumerate(filled) if p.name == name):
        for key in reversed(keys):
            values[place] = {key: values[place]}
    ahead = [p.name for p in _parameters(model.forward) if p.kind in (*_POSITIONAL, p.VAR_POSITIONAL)]
    if [p.name for p in filled] == ahead[: len(filled)]:
        return tuple(values)
    return {p.name: value for p, value in zip(filled, values, strict=True)}


def _random(model: nn.Module, resolution: int | tuple[int, int], batch: int, stem: Stem) -> Tensor:
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    shape = (batch, stem.channels, *stem.frames, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(height)).to(like)


def _settled(run: Callable[[Stem], object], stem: Stem) -> Stem | None:
    """Follow what the layer asks for until it gets that; None if it never does."""
    tried: set[Stem] = set()
    while stem not in tried and stem.channels > 0:
        tried.add(stem)
        follow = _Follow()
        # Whatever the model's own code raises, and what ends the forward.
        with suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices=[]), follow:
            run(stem)
        if follow.reached is None:
            return None
        got, wanted, frames = follow.reached
        if frames is not None:
            stem = Stem(stem.channels, frames)
        elif got == wanted:
            return stem
        else:
            share, rest = divmod(wanted * stem.channels, max(got, 1))
            stem = Stem(share if rest == 0 else stem.channels + wanted - got, stem.frames)
    return None


class _ReachedError(Exception):
    """Ends a forward."""


class _Follow(TorchFunctionMode):
    """Ends the forward at the first layer whose input holds NaNs; tensors without data all count.

    ``reached`` are the channels that the layer got, those that it takes, and the frames that it needs: None where its
    input has the dimensions that it takes.
    """

    reached: tuple[int, int, tuple[int, ...] | None] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {**dict(enumerate(args)), **(kwargs or {})}
        if func in _LAYERS:
            place, name, axis = _LAYERS[func]
            image, weight = given.get(0, given.get("input")), given.get(place, given.get(name))
            if isinstance(image, Tensor) and isinstance(weight, Tensor) and _is_watched(image):
                groups = given.get(6, given.get("groups", 1)) if func in _GROUPED else 1
                channel = -1 if func is F.linear else 1 if weight.ndim == 1 else 1 - weight.ndim
                # A clip where the layer takes an image, or an image where it takes a clip.
                frames = {(4, 5): _CLIP, (5, 4): ()}.get((image.ndim, weight.ndim))
                self.reached = image.shape[channel], weight.shape[axis] * groups, frames
                raise _ReachedError
        return func(*args, **(kwargs or {}))


def _is_watched(image: Tensor) -> bool:
    return image.ndim > 1 and (image.is_meta or bool(image.isnan().any()))
