"""A switchable network to its file, to back from it, to a part of itself."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from rsconvert.checkpoint.limits import built_within
from rsconvert.checkpoint.metadata import Metadata, check_file, encode_metadata, names_library, read_metadata
from rsconvert.checkpoint.packed import packed_state, read_unpacked
from rsconvert.checkpoint.places import file_of, warn_of_loading
from rsconvert.checkpoint.tensors import fill, read_entries, write_tensors
from rsconvert.errors import CheckpointError, ConfigError, ResolutionError, UnsupportedModelError
from rsconvert.models import Source, create_model, example_stem, is_file_name, set_source, source_of, unfilled
from rsconvert.quantization import build_quantized, can_quantize, quantize_layers
from rsconvert.surgery import (
    BUILD,
    Build,
    Measured,
    SwitchableModel,
    assemble,
    batchnorms,
    build_like,
    check_resolutions,
    default_images,
    interpolation_weights,
    rebuilt,
    regroup,
)

__all__ = ["load", "load_alongside", "load_with", "save", "subset", "write_network"]


def save(net: SwitchableModel, path: str | Path) -> None:
    """Write a network to one file, in place of a file of that name; an interrupted write leaves the old one whole.

    Warns:
        NamelessModelWarning: the file alone will not be enough to load the network, see ``loading_note``.
    Raises:
        CheckpointError: the file can't be written, or an argument of the model has no form in JSON.
        UnsupportedModelError: a quantized weight was changed, so that the file's few bits can't hold it.
    """
    warn_of_loading(net)
    write_network(net, path)


def write_network(net: SwitchableModel, path: str | Path) -> None:
    """Write a network as ``save`` does, without a warning."""
    tensors, aliases = packed_state(net, *_untied(net.state_dict()))
    write_tensors(tensors, path, encode_metadata(net, aliases))


@overload
def load(
    place: str | Path, model: nn.Module | None = None, *, build: Build | None = None, resolution: None = None
) -> SwitchableModel: ...


@overload
def load(
    place: str | Path, model: nn.Module | None = None, *, build: Build | None = None, resolution: int
) -> nn.Module: ...


@torch.inference_mode(False)
def load(
    place: str | Path, model: nn.Module | None = None, *, build: Build | None = None, resolution: int | None = None
) -> nn.Module:
    """Return a network in eval mode as a SwitchableModel; or, for a ``resolution``, that path as a plain model.

    Without ``model`` the network is built from the name in the file, which can be a name of timm, torchvision or smp
    only: a file never makes rsconvert import code, nor fetch anything.

    Args:
        place: a file, the folder of a run, whose best network it is, a folder for a hub, also as ``local-dir:DIR``, or
            ``hf-hub:USER/NAME``, which is fetched.
        model: a plain model of the saved class, left unchanged; needed for a network without a name.
        build: a function of the resolution that makes the model for it; needed if the saved network was made with one.
        resolution: a trained one, whose set alone is read.
    Raises:
        CheckpointError: there is no file, or it is broken, truncated, foreign or from a later version; it has no such
            resolution, or holds other tensors than the network.
    """
    path = file_of(place)
    held = read_metadata(path)
    if resolution is not None and resolution not in held.resolutions:
        raise CheckpointError(
            f"{path} has no set for {resolution}; it holds {held.resolutions}. "
            f"Choose one of them, or load the network and extract({resolution})."
        )
    sides = held.resolutions if resolution is None else (resolution,)
    try:
        plain = _quantized(_built(held, path) if model is None else model, held)
        source = _source(held.source, plain, model, sides[0])
        again = _rebuilt(source, model, build, held)
        with nullcontext() if model is not None or not again else _within_its_size(path, held, len(sides)):
            built = {r: build_like(again, plain, r) for r in sides} if again else {}
        if resolution is not None:
            one = copy.deepcopy(built.get(resolution, plain))
            return _filled(one, source, held, path, resolution).eval()
        net = assemble(plain, sides, private=held.private, build=again, built=built, others=_other_private(held, plain))
    except (UnsupportedModelError, ResolutionError, ConfigError) as error:
        raise CheckpointError(f"{path} can't be rebuilt: {error}") from error
    net.source = source
    tensors = read_unpacked(path, net, held.quantized)
    aliases = {alias: tensors[name] for alias, name in held.aliases.items() if name in tensors}
    fill(net, tensors | aliases, str(path))
    net.measured = held.measured
    return net.eval()


def load_with(place: str | Path, function: str) -> SwitchableModel:
    """Return the network of a place, built by the function ``file.py:function`` that the caller names.

    A network that was built for each resolution needs a function that takes ``img_size``.

    Raises:
        CheckpointError, UnsupportedModelError: as ``load`` and ``create_model``.
    """
    path = file_of(place)
    source = read_metadata(path).source
    kwargs = dict(source.model_kwargs)
    # A file's function gets num_classes only if it got it before: by default it may count in its own way.
    own = is_file_name(source.architecture or "")
    given = kwargs.pop("num_classes", None) if own else source.num_classes

    def build(**more: int) -> nn.Module:
        return create_model(function, num_classes=given, model_kwargs={**kwargs, **more})

    return load(path, build(), build=(lambda side: build(img_size=side)) if source.built_with == BUILD else None)


@torch.inference_mode(False)
def load_alongside(place: str | Path, net: SwitchableModel) -> SwitchableModel:
    """Return the network of a place that works next to another one, such as its teacher.

    Without a library's name it is built as ``net`` was, if both were made by the same function: by the one that the
    caller named for ``net``, or out of the model that ``net`` holds, if it had the same arguments.

    Raises:
        CheckpointError: as ``load``.
    """
    path = file_of(place)
    source, own = read_metadata(path).source, net.source
    if names_library(source) or _function(source) != _function(own):
        return load(path)
    plain = net.extract(net.native)
    function = source_of(plain).architecture
    if function is not None and is_file_name(function):
        return load_with(path, function)
    if dict(source.model_kwargs) != dict(own.model_kwargs):
        return load(path)
    return load(path, plain, build=net.build if source.built_with == BUILD else None)


def _function(source: Source) -> str | None:
    """Return the name that a source was made by; of a user's file the folder does not count."""
    name = source.architecture
    return Path(name).name if name is not None and is_file_name(name) else name


def _trusted(source: Source, model: nn.Module | None) -> Source:
    """Return what may build the model again: a library's name in the file, else what the caller's own model notes."""
    if names_library(source):
        return source
    return replace(Source() if model is None else source_of(model), built_with=source.built_with)


@torch.inference_mode(False)
def subset(net: SwitchableModel, resolutions: Sequence[int]) -> SwitchableModel:
    """Return an independent network that keeps some of the sets; the largest kept becomes native.

    Of the measured costs those stay whose paths stay what they were: a path at an untrained resolution is another one
    if one of the two sets goes between which it was interpolated.

    Raises:
        CheckpointError: a resolution is not among the trained ones.
        ResolutionError: the list is empty or malformed.
    """
    kept = check_resolutions(resolutions)
    if unknown := [r for r in kept if r not in net.resolutions]:
        raise CheckpointError(
            f"resolution {unknown[0]} has no set in the network; it holds {net.resolutions}. Choose among them."
        )
    places = [net.resolutions.index(r) for r in kept]
    small = regroup(net, {resolution: net.extract(resolution) for resolution in kept})
    own = net.source.preprocessing
    if isinstance(own.crop_pct, tuple):
        own = replace(own, crop_pct=tuple(own.crop_pct[i] for i in places))
    small.source = replace(net.source, preprocessing=own)
    small.alpha.data = net.alpha.detach()[places].clone()
    small.measured = Measured(costs=_kept_costs(net, kept))
    return small


def _kept_costs(net: SwitchableModel, kept: Sequence[int]) -> dict[str, list[Mapping[str, Any]]] | None:
    def stays(resolution: int) -> bool:
        weights = zip(net.resolutions, interpolation_weights(resolution, net.resolutions), strict=True)
        return all(trained in kept for trained, weight in weights if weight > 0)

    costs = net.measured.costs or {}
    rows = {machine: [row for row in table if stays(row["resolution"])] for machine, table in costs.items()}
    return {machine: table for machine, table in rows.items() if table} or None


def _untied(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split a state_dict into tensors and the further names of those that it holds under several."""
    first: dict[tuple[Any, ...], str] = {}
    tensors, aliases = {}, {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{name} in the state_dict is a {type(tensor).__name__}; a file holds tensors alone. Remove it."
            )
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            aliases[name] = first[place]
        else:
            first[place] = name
            tensors[name] = tensor
    return tensors, aliases


def _within_its_size(path: str, held: Metadata, copies: int) -> AbstractContextManager[None]:
    """Check what the header says of the tensors; return what bounds the models that are built for them."""
    entries = read_entries(path)
    check_file(path, held, entries)
    return built_within(entries, Path(path).stat().st_size, copies)


def _built(held: Metadata, path: str) -> nn.Module:
    source, name = held.source, held.source.architecture
    if name is None or not names_library(source):
        raise CheckpointError(
            f"{path} holds a network made by {name or 'code without a name'}; only names of timm, torchvision and "
            "smp are built from a file alone. Give the model: load(path, model=…), with build= if it was made so, or "
            "--model file.py:function."
        )
    with _within_its_size(path, held, 1), unfilled():
        return create_model(name, num_classes=source.num_classes, model_kwargs=source.model_kwargs)


def _quantized(plain: nn.Module, held: Metadata) -> nn.Module:
    """Return a model with the file's quantized convolutions; a copy of the caller's own."""
    if not held.quantized:
        return plain
    convs = {name for name, module in plain.named_modules() if can_quantize(module)}
    if strange := sorted(held.quantized.keys() - convs):
        raise UnsupportedModelError(f"its quantized {strange[0]} is no convolution of {type(plain).__name__}")
    return quantize_layers(copy.deepcopy(plain), held.quantized)


def _rebuilt(source: Source, model: nn.Module | None, build: Build | None, held: Metadata) -> Build | None:
    """Return what builds the model for a resolution, with the file's quantized convolutions."""
    again = rebuilt(_trusted(source, model), build)
    return again if again is None or not held.quantized else partial(build_quantized, again, held.quantized)


def _source(source: Source, plain: nn.Module, model: nn.Module | None, side: int) -> Source:
    """Return what is known: of a network without a name the given model may know its own."""
    if source.images is None:  # a file from before they were noted
        channels = example_stem(plain, side).channels
        source = replace(source, images=default_images(plain)).with_channels(channels)
    if model is None or source.architecture is not None:
        return source
    own = source_of(model)
    outputs = own.num_classes if source.num_classes is None else source.num_classes
    return replace(source, architecture=own.architecture, model_kwargs=own.model_kwargs, num_classes=outputs)


def _other_private(held: Metadata, plain: nn.Module) -> list[str]:
    """Return the private tensors of the file that no BatchNorm owns, as far as the model has them."""
    own = dict((*plain.named_parameters(), *plain.named_buffers()))
    inside = tuple(f"{bn}.".lstrip(".") for bn in batchnorms(plain))
    return [name for name in held.private_tensors if name in own and not name.startswith(inside)]


def _filled(plain: nn.Module, source: Source, held: Metadata, path: str, resolution: int) -> nn.Module:
    """Give a plain model the shared tensors and one set."""
    keys = {key: key for key in plain.state_dict()}
    if resolution != held.resolutions[0]:
        private = batchnorms(plain) if held.private else {}
        owners = [(key, bn) for bn in private for key in keys if key.startswith(f"{bn}." if bn else "")]
        owners += [(key, key.rpartition(".")[0]) for key in _other_private(held, plain) if key in keys]
        for key, owner in owners:
            prefix = f"{owner}." if owner else ""
            keys[key] = f"{prefix}at.{resolution}.{key.removeprefix(prefix)}"
    for key in keys:  # a module under a second name: the file lists its private tensors as aliases alone
        owner, _, tensor = key.rpartition(".")
        second = f"{owner}.at.{resolution}.{tensor}".lstrip(".")
        keys[key] = second if second in held.aliases else keys[key]
    stored = {key: held.aliases.get(name, name) for key, name in keys.items()}
    tensors = read_unpacked(path, plain, held.quantized, sorted(set(stored.values())))
    fill(plain, {key: tensors[name] for key, name in stored.items() if name in tensors}, path)
    set_source(plain, source)
    return plain
