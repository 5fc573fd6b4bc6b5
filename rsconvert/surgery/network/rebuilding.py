"""Models built again for another image size, with the values of the one that is there.

A position table, whose size follows the resolution, is resampled as timm does when it loads weights trained at another
size. By name:

- ``relative_position_bias_table`` (coatnet, maxvit) and ``pos_emb`` (lambda layers), one entry per 2-d offset:
  ``resize_rel_pos_bias_table``. timm resizes no ``pos_emb``; it is the former with channels in place of heads.
- ``attention_biases`` (levit, efficientformerv2, efficientvit_m), one entry per distance:
  ``resize_rel_pos_bias_table_levit``, as timm does for tiny_vit and efficientvit_m.
- ``pos_embed`` (vision transformers, attention pooling), one entry per position: ``resample_abs_pos_embed``, on a grid
  (volo; visformer's ``pos_embed1`` to ``pos_embed3``, channels first) ``resample_abs_pos_embed_nhwc``. timm does not
  resize those of volo and visformer; they are grids of the same kind.
- ``height_rel``, ``width_rel`` (botnet), one entry per 1-d offset: timm has no function for botnet. The same table
  in its ``vision_transformer_sam`` is interpolated linearly (``get_rel_pos``), and so it is done here.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch.nn.functional as F
from timm.layers import (
    resample_abs_pos_embed,
    resample_abs_pos_embed_nhwc,
    resize_rel_pos_bias_table,
    resize_rel_pos_bias_table_levit,
)
from torch import Size, Tensor, nn

from rsconvert.errors import ConfigError, ResolutionError, RSConvertError, UnsupportedModelError, first_line
from rsconvert.models import Source, create_model, is_file_name, replace_classifier, unfilled
from rsconvert.surgery.network.copying import copy_model

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
    "resample_table",
]

Build = Callable[[int], nn.Module]
BUILD = "build"
# What they compute depends on their settings, and never on the image's size.
_CONFIGURED = (nn.modules.batchnorm._BatchNorm, nn.modules.conv._ConvNd, nn.Linear)
WAYS = ("img_size", "dynamic_img_size")


def kwargs_at(source: Source, resolution: int) -> dict[str, Any]:
    """Return the arguments with which the source's builder makes the model for a resolution."""
    sizes = dict(zip(WAYS, (resolution, True), strict=True))
    return {**source.model_kwargs, **{way: value for way, value in sizes.items() if way == source.built_with}}


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
    if source.built_with is None:
        if build is not None:
            raise ConfigError("build has no effect: the network is one model that takes all sizes. Drop it.")
        return None
    ways = dict(builders(source, build))
    found = ways.get(BUILD) or ways.get(source.built_with)
    if found is None:
        raise UnsupportedModelError(
            f"the network was built for each resolution by {source.built_with}, which is unavailable; a function of "
            "the resolution that returns the plain model is needed. Pass build=."
        )
    return found


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
            "takes every resolution is needed. Choose another resolution, or fix build."
        ) from error
    if not isinstance(built, nn.Module):
        raise UnsupportedModelError(f"build returned {type(built).__name__} for {resolution}; an nn.Module is needed.")
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
    if value is None and wanted is None:
        return None
    if value is None or wanted is None:
        raise _misfit(model, name, "other tensors")
    if value.shape == wanted.shape:
        return value
    try:
        table = resample_table(value.detach(), key, module)
    except Exception:  # a table of this name, but of another kind
        table = None
    if table is None:
        raise _misfit(model, f"{name}.{key}".lstrip("."), f"the shape {tuple(wanted.shape)}")
    return nn.Parameter(table, value.requires_grad)


def _buffer(module: nn.Module, key: str, value: Tensor | None) -> Tensor | None:
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
    kwargs = kwargs_at(replace(source, built_with=way), resolution)
    # A file's function notes num_classes among its arguments, if it was given it.
    noted = kwargs.pop("num_classes", None) if is_file_name(source.architecture) else source.num_classes
    with unfilled():
        return create_model(source.architecture, num_classes=noted, model_kwargs=kwargs)


def _misfit(model: nn.Module, name: str, what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{type(model).__name__} built for another resolution has {what} at {name or 'its root'}; the same model is "
        f"needed, position tables apart, whose names are {', '.join(_KINDS)}. Fix build, or rename the table."
    )


def resample_table(table: Tensor, name: str, owner: nn.Module) -> Tensor | None:
    """Return a position table resampled to the size that ``owner`` was built for; None if the kind is unknown.

    A table that has this size already is copied, whatever its kind.

    Args:
        table: the values of the source, a table for square images.
        name: the name of the tensor inside ``owner``, such as ``attention_biases``.
        owner: the module, built for the wanted resolution; its own tensor gives the shape of the result.
    Returns:
        A tensor without gradient, of the dtype and on the device of ``table``.
    """
    wanted = getattr(owner, name).shape
    if table.shape == wanted:
        return table.detach().clone()
    resample = _KINDS.get(name.rstrip("0123456789"))
    if resample is None:
        return None
    # Float32 on the CPU, and the reshape: timm 1.0.22 fails otherwise, and joins the heads of a maxvit into one.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about how timm lays out and indexes its grid
        resampled: Tensor = resample(table.detach().float().cpu(), wanted, owner)
    # A view of a transposed table would run differently from a table that was built or loaded.
    return resampled.reshape(wanted).to(table).contiguous()


# Each takes the table, the shape wanted and the owner. Any: timm's functions and attributes have no types.


def _relative(table: Tensor, wanted: Size, owner: Any) -> Any:
    """Resample (offsets, heads) or (heads, 2h-1, 2w-1)."""
    return resize_rel_pos_bias_table(table, new_window_size=owner.window_size, new_bias_shape=wanted)


def _lambda(table: Tensor, wanted: Size, owner: Any) -> Any:
    """Resample (2h-1, 2w-1, channels)."""
    height, width, channels = wanted
    size = ((height + 1) // 2, (width + 1) // 2)
    return resize_rel_pos_bias_table(
        table.flatten(0, 1), new_window_size=size, new_bias_shape=(height * width, channels)
    )


def _distances(table: Tensor, wanted: Size, owner: Any) -> Any:
    """Resample (heads, h·w)."""
    return resize_rel_pos_bias_table_levit(table.T, wanted[::-1]).T


def _axis(table: Tensor, wanted: Size, owner: Any) -> Any:
    """Resample (2n-1, channels)."""
    return F.interpolate(table.T[None], size=wanted[0], mode="linear")[0].T


def _absolute(table: Tensor, wanted: Size, owner: Any) -> Any:
    """Resample ([1,] prefix + h·w, channels), (1, h, w, channels) or (1, channels, h, w)."""
    if table.ndim < 4:
        return _tokens(table.reshape(1, *table.shape[-2:]), wanted[-2], owner)
    if table.shape[-1] == wanted[-1]:
        return resample_abs_pos_embed_nhwc(table, new_size=wanted[1:3])
    return resample_abs_pos_embed_nhwc(table.permute(0, 2, 3, 1), new_size=wanted[2:]).permute(0, 3, 1, 2)


def _tokens(table: Tensor, length: int, owner: Any) -> Any:
    """Resample (1, prefix + h·w, channels) to a new length; class and register tokens stand in front, unchanged."""
    side = math.isqrt(length)
    patches = getattr(owner, "patch_embed", None)
    grid = getattr(patches, "grid_size", None) or getattr(owner, "feat_size", None) or (side, side)
    return resample_abs_pos_embed(table, new_size=grid, num_prefix_tokens=length - grid[0] * grid[1])


_KINDS: dict[str, Callable[[Tensor, Size, Any], Any]] = {
    "attention_biases": _distances,
    "height_rel": _axis,
    "pos_emb": _lambda,
    "pos_embed": _absolute,
    "relative_position_bias_table": _relative,
    "width_rel": _axis,
}
