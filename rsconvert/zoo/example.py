"""Example inputs: what a model of any task takes at a resolution, read from the model itself."""

import inspect
from typing import Any

import torch
from timm.layers.space_to_depth import SpaceToDepth
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

__all__ = ["example_arguments", "example_input", "input_channels", "resizes_inside"]


def example_arguments(model: nn.Module, resolution: int | tuple[int, int], batch: int = 1) -> tuple[Any, ...]:
    """Return fixed random arguments for ``forward`` at a resolution, or a height and width: one image batch as a rule.

    A model that resizes inside takes a list of images, (C, resolution, resolution) each; one whose ``forward`` demands
    several arguments, as of optical flow, gets as many image batches.
    """
    if resizes_inside(model):
        return (list(example_input(model, resolution, batch)),)
    parameters = inspect.signature(model.forward).parameters.values()
    demanded = [
        p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    image = example_input(model, resolution, batch)
    return (image, *(image.flip(0, -1) for _ in demanded[1:]))


def example_input(model: nn.Module, resolution: int | tuple[int, int], batch: int = 1) -> Tensor:
    """Return a fixed random image batch (N, C, resolution, resolution) with the channels that the model takes.

    A network of 3d convolutions gets clips of 16 frames, (N, C, 16, resolution, resolution).
    """
    channels, frames = _stem(model)
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    shape = (batch, channels, *frames, height, width)
    image = torch.randn(shape, generator=torch.Generator().manual_seed(height))
    like = next((p for p in model.parameters() if p.is_floating_point()), image)
    return image.to(like.device, like.dtype)


def input_channels(model: nn.Module) -> int:
    """Return the channels of the images that a model takes: 3 for colours, 1 for grey."""
    return _stem(model)[0]


def resizes_inside(model: nn.Module) -> bool:
    """Tell whether a model resizes its images itself, as torchvision's detectors do: their size tells no path."""
    return any(isinstance(child, GeneralizedRCNNTransform) for child in model.children())


def _stem(model: nn.Module) -> tuple[int, tuple[int, ...]]:
    """Return the channels of an image, and its frames if it is a clip, by the first convolution.

    The first for colours or grey counts: the order of registration need not be that of computation.
    """
    folded, stems = 1, []
    for module in model.modules():
        if isinstance(module, SpaceToDepth):
            folded *= module.bs**2
        elif isinstance(module, nn.PixelUnshuffle):
            folded *= module.downscale_factor**2
        elif isinstance(module, (nn.Conv2d, nn.Conv3d)):
            stems.append((module.in_channels // folded, (16,) if isinstance(module, nn.Conv3d) else ()))
    likely = [stem for stem in stems if stem[0] in (1, 3)]
    return next(iter(likely or stems), (3, ()))
