"""Models built again for another image size, with the values of the one that is there."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from rsconvert.errors import ConfigError, ResolutionError, RSConvertError, UnsupportedModelError, first_line
from rsconvert.models import Source, create_model, is_file_name, replace_classifier, unfilled
from rsconvert.surgery.network.paths import copy_model
from rsconvert.surgery.network.position_tables import TABLES, resample_table

__all__ = [
    "BUILD",
    "WAYS",
    "Build",
    "build_like",
    "build_with_classifier",
    "builders",
    "fit_to",
    "kwargs_at",
    "rebuilt",
]

Build = Callable[[int], nn.Module]
BUILD = "build"
# What they compute depends on their settings, and never on the image's size.
_CONFIGURED = (nn.modules.batchnorm._BatchNorm, nn.modules.conv._ConvNd, nn.Linear)
WAYS = ("img_size", "dynamic_img_size")


def kwargs_at(source: Source, resolution: int) -> dict[str, Any]:
    """Return the arguments with which the source's builder makes the model for a resolution."""
    return {**source.model_kwargs, **_size_argument(source.built_with, resolution)}


def builders(source: Source, build: Build | None) -> Iterator[tuple[str, Build]]:
    """Yield the ways to make a source again for a resolution: the caller's alone, or those of its named builder."""
    if build is not None:
        yield BUILD, partial(_apart, build)
    elif source.architecture is not None:
        for way in WAYS:
            yield way, partial(_create, source, way)


def rebuilt(source: Source, build: Build | None) -> Build | None:
    """Return the function that makes a source again for a resolution in the way that it notes; None if it needs none.

    Raises:
        UnsupportedModelError: it was made by a function of the caller's, which is not given.
        ConfigError: such a function is given without need.
    """
    ways = dict(builders(source, build))
    if source.built_with is None:
        if build is not None:
            raise ConfigError("build has no effect: the network is one model that takes all sizes. Drop it.")
        return None
    if BUILD not in ways and source.built_with not in ways:
        raise UnsupportedModelError(
            f"the network was built for each resolution by {source.built_with}, which is not at hand; a function of "
            "the resolution that returns the plain model is needed. Pass build=."
        )
    return ways.get(BUILD) or ways[source.built_with]


def build_like(build: Build, model: nn.Module, resolution: int) -> nn.Module:
    """Return the model that ``build`` makes for a resolution, around the tensors of ``model``.

    Raises:
        ResolutionError: it can't be built for the resolution.
        UnsupportedModelError: it is another model.
    """
    try:
        built = build(resolution)
    except RSConvertError:
        raise
    except Exception as error:  # whatever the caller's own code raises
        raise ResolutionError(
            f"resolution {resolution} can't be built ({type(error).__name__}: {first_line(error)}); a function that "
            "takes every resolution is needed. Choose another resolution, or correct build."
        ) from error
    if not isinstance(built, nn.Module):
        raise UnsupportedModelError(
            f"build returned {type(built).__name__} for {resolution}; an nn.Module is needed. Return the model."
        )
    fit_to(built, model)
    return built


def build_with_classifier(build: Build, num_classes: int, resolution: int) -> nn.Module:
    """Return what ``build`` makes, with another number of outputs."""
    built = build(resolution)
    replace_classifier(built, num_classes)
    return built


def fit_to(built: nn.Module, model: nn.Module) -> None:
    """Put the tensors of ``model`` in the place of those of ``built``; position tables are resampled to their shape.

    Index maps, which are buffers that no file holds, stay those of ``built``, as do buffers of another shape.

    Raises:
        UnsupportedModelError: the modules or tensors differ in more than position tables.
    """
    theirs, own = dict(model.named_modules()), dict(built.named_modules())
    if different := sorted(theirs.keys() ^ own.keys()) or [n for n in own if _kind(own[n]) != _kind(theirs[n])]:
        raise _misfit(model, different[0], "another module")
    made: dict[int, nn.Parameter | None] = {}
    for name, module in own.items():
        source = theirs[name]
        module.training = source.training
        if module._parameters.keys() != source._parameters.keys() or module._buffers.keys() != source._buffers.keys():
            raise _misfit(model, name, "other tensors")
        for key, value in source._parameters.items():
            if id(value) not in made or value is None:
                made[id(value)] = _fitted(model, module, name, key, value)
            module._parameters[key] = made[id(value)]
        module._buffers.update({key: _buffer(module, key, value) for key, value in source._buffers.items()})
        if isinstance(module, _CONFIGURED) and module.extra_repr() != source.extra_repr():
            raise _misfit(model, name, f"({module.extra_repr()}) instead of ({source.extra_repr()})")


def _kind(module: nn.Module) -> tuple[str, str]:
    """Return the class by name: a user's file that is run again makes another class of the same name."""
    return type(module).__module__, type(module).__qualname__


def _fitted(
    model: nn.Module, module: nn.Module, name: str, key: str, value: nn.Parameter | None
) -> nn.Parameter | None:
    wanted = module._parameters[key]
    if value is None or wanted is None:
        if value is not wanted:
            raise _misfit(model, name, "other tensors")
        return None
    if value.shape == wanted.shape:
        return value
    try:
        table = resample_table(value.detach(), key, module)
    except Exception:  # a table of this name, but of another kind
        table = None
    if table is None:
        raise _misfit(model, f"{name}.{key}".lstrip("."), f"the shape {tuple(wanted.shape)}")
    return nn.Parameter(table, value.requires_grad)


def _buffer(module: nn.Module, key: str, value: torch.Tensor | None) -> torch.Tensor | None:
    wanted = module._buffers[key]
    if value is None or wanted is None:
        return wanted
    if key not in module._non_persistent_buffers_set and value.shape == wanted.shape:
        return value
    return wanted.to(value)


def _apart(build: Build, resolution: int) -> nn.Module:
    """Return a copy over the same tensors: a caller's function may keep what it returns."""
    built = build(resolution)
    if not isinstance(built, nn.Module):
        return built
    return copy_model(built, {id(t): t for t in (*built.parameters(), *built.buffers())})


def _create(source: Source, way: str, resolution: int) -> nn.Module:
    assert source.architecture is not None
    kwargs = {**source.model_kwargs, **_size_argument(way, resolution)}
    # A file's function notes num_classes among its arguments, if it was given it.
    noted = kwargs.pop("num_classes", None) if is_file_name(source.architecture) else source.num_classes
    with unfilled():
        return create_model(source.architecture, num_classes=noted, model_kwargs=kwargs)


def _size_argument(way: str | None, resolution: int) -> Mapping[str, Any]:
    known: dict[str | None, dict[str, Any]] = {
        "img_size": {"img_size": resolution},
        "dynamic_img_size": {"dynamic_img_size": True},
    }
    return known.get(way, {})


def _misfit(model: nn.Module, name: str, what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{type(model).__name__} built for another resolution has {what} at {name or 'its root'}; the same model is "
        f"needed, position tables apart, whose names are {', '.join(TABLES)}. Correct build, or rename the table."
    )
