"""The stem: the first layer that a model's input reaches, which tells how many channels an image has."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.space_to_depth import SpaceToDepth
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.models.detection.transform import GeneralizedRCNNTransform

__all__ = ["Stem", "resizes_inside", "seen_stem", "static_stem"]

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


class _ReachedError(Exception):
    """Ends a forward at the first layer that gets the image: the channels it got, those it takes, the frames it needs.

    ``frames`` is None where the layer takes an input of as many dimensions as it got.
    """

    def __init__(self, got: int, wanted: int, frames: tuple[int, ...] | None) -> None:
        self.got, self.wanted, self.frames = got, wanted, frames


def resizes_inside(model: nn.Module) -> bool:
    """Tell whether a model resizes its images itself, as torchvision's detectors do: their size tells no path."""
    return any(isinstance(child, GeneralizedRCNNTransform) for child in model.children())


def seen_stem(model: nn.Module, run: Callable[[Stem], object]) -> Stem:
    """Return what the first layer takes that sees the input; what the modules suggest where no layer can be watched.

    An image of NaNs is followed to its first convolution, linear layer or BatchNorm, where the forward ends: no
    statistic moves, and all modules are in eval mode meanwhile. What a layer gets of three channels tells what lies
    before it, such as a fold of the pixels.

    Args:
        run: runs the model on an image of NaNs of such a stem.
    """
    static = static_stem(model)
    if resizes_inside(model):
        return static
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


def _settled(run: Callable[[Stem], object], stem: Stem) -> Stem | None:
    """Follow what the layer asks for until it gets that; None if it never does."""
    tried: set[Stem] = set()
    while stem not in tried and stem.channels > 0:
        tried.add(stem)
        reached = _reached(run, stem)
        if reached is None:
            return None
        if reached.frames is not None:
            stem = Stem(stem.channels, reached.frames)
            continue
        if reached.got == reached.wanted:
            return stem
        share, rest = divmod(reached.wanted * stem.channels, max(reached.got, 1))
        stem = Stem(share if rest == 0 else stem.channels + reached.wanted - reached.got, stem.frames)
    return None


def _reached(run: Callable[[Stem], object], stem: Stem) -> _ReachedError | None:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _Follow():
            run(stem)
    except _ReachedError as reached:
        return reached
    except Exception:  # whatever the model's own code raises
        return None
    return None


class _Follow(TorchFunctionMode):
    """Ends the forward at the first layer whose input holds NaNs; tensors without data all count."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {**dict(enumerate(args)), **(kwargs or {})}
        if func in _LAYERS:
            place, name, axis = _LAYERS[func]
            image, weight = given.get(0, given.get("input")), given.get(place, given.get(name))
            if isinstance(image, Tensor) and isinstance(weight, Tensor) and _is_seen(image):
                groups = given.get(6, given.get("groups", 1)) if func in _GROUPED else 1
                channel = -1 if func is F.linear else 1 if weight.ndim == 1 else 1 - weight.ndim
                raise _ReachedError(image.shape[channel], weight.shape[axis] * groups, _frames(image, weight))
        return func(*args, **(kwargs or {}))


def _is_seen(image: Tensor) -> bool:
    return image.ndim > 1 and (image.is_meta or bool(image.isnan().any()))


def _frames(image: Tensor, weight: Tensor) -> tuple[int, ...] | None:
    """Return the frames that a convolution needs, if its input is a clip or an image in the place of the other."""
    return {(4, 5): _CLIP, (5, 4): ()}.get((image.ndim, weight.ndim))
