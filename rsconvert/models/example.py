"""Example inputs: what a model of any task takes at a resolution, read from the model itself."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rsconvert.models.stem import Stem, resizes_inside, seen_stem

__all__ = [
    "Arguments",
    "argument_names",
    "as_call",
    "example_arguments",
    "example_input",
    "example_stem",
    "input_channels",
    "positional_names",
    "receivers",
    "resizes_inside",
]

Arguments = tuple[Any, ...] | Mapping[str, Any]
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


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
        stem: what the images are like; by default what ``example_stem`` sees.
    """
    stem = stem or example_stem(model, resolution, image=image)
    if resizes_inside(model):
        return (list(_random(model, resolution, batch, stem)),)
    return _placed(model, image, _random(model, resolution, batch, stem))


def example_input(model: nn.Module, resolution: int | tuple[int, int], batch: int = 1) -> Tensor:
    """Return a fixed random image batch (N, C, resolution, resolution) with the channels that the model takes.

    A network of 3d convolutions gets clips of 16 frames, (N, C, 16, resolution, resolution).
    """
    return _random(model, resolution, batch, example_stem(model, resolution))


def example_stem(model: nn.Module, resolution: int | tuple[int, int], *, image: int | str | None = None) -> Stem:
    """Return what the images of a model are like, by a forward that ends at the first layer that gets one."""

    def run(stem: Stem) -> None:
        args, kwargs = as_call(_placed(model, image, _blank(model, resolution, 1, stem).fill_(torch.nan)))
        model(*args, **kwargs)

    return seen_stem(model, run)


def input_channels(model: nn.Module, resolution: int = 224) -> int:
    """Return the channels of the images that a model takes: 3 for colours, 1 for grey."""
    return example_stem(model, resolution).channels


def as_call(arguments: Arguments) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments: those of a tuple, or of a dictionary."""
    return ((), dict(arguments)) if isinstance(arguments, Mapping) else (tuple(arguments), {})


def receivers(model: nn.Module, image: int | str | None = None) -> list[inspect.Parameter]:
    """Return the parameters of ``forward`` that an example fills: those it demands, else its first one.

    Args:
        image: the position or the name of one more.
    """
    parameters = _parameters(model.forward)
    named = [p for p in parameters if p.kind in (*_POSITIONAL, p.KEYWORD_ONLY)]
    found = [p for p in named if p.default is p.empty] or _first(parameters)
    if isinstance(image, int) and 0 <= image < len(named):
        image = named[image].name
    if isinstance(image, str) and image.partition(".")[0] not in [p.name for p in found]:
        told = inspect.Parameter(image.partition(".")[0], inspect.Parameter.KEYWORD_ONLY)
        demanded = [p for p in found if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
        found = [*demanded, *([p for p in named if p.name == told.name] or [told])]
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


def _parameters(forward: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):  # of compiled code
        return [inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)]


def _first(parameters: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    """Return the first parameter that takes a value by position, or else by keyword."""
    kinds = (*_POSITIONAL, inspect.Parameter.VAR_POSITIONAL)
    positional = [p for p in parameters if p.kind in kinds]
    return (positional or [p for p in parameters if p.kind is p.KEYWORD_ONLY])[:1]


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
    blank = _blank(model, resolution, batch, stem)
    return torch.randn(blank.shape, generator=torch.Generator().manual_seed(blank.shape[-2])).to(blank)


def _blank(model: nn.Module, resolution: int | tuple[int, int], batch: int, stem: Stem) -> Tensor:
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.empty((batch, stem.channels, *stem.frames, height, width), device=like.device, dtype=like.dtype)
