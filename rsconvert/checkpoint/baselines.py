"""Networks next to a given one: those it is compared with, and plain models built as it was."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from rsconvert.checkpoint.file import load, load_with
from rsconvert.checkpoint.metadata import names_library, read_metadata
from rsconvert.checkpoint.places import file_of
from rsconvert.checkpoint.tensors import read_header
from rsconvert.errors import ConfigError
from rsconvert.models import create_model, is_file_name, set_source
from rsconvert.surgery import SwitchableModel

__all__ = ["builder_of", "load_among", "load_baseline"]


def load_among(place: str, function: str | None) -> SwitchableModel:
    """Return one of several networks: built by the library's name in its file, or else by the function."""
    file = file_of(place)
    return load(file) if function is None or names_library(read_metadata(file).source) else load_with(file, function)


def load_baseline(place: str, net: SwitchableModel, function: str | None) -> nn.Module:
    """Return a network to compare ``net`` with.

    Args:
        place: a checkpoint, the folder of a run, a file of plain weights for the architecture and preprocessing of
            ``net``, or a model as for ``wrap``, with its pretrained weights.
        function: ``file.py:function`` that builds ``net``; None if the library's name does.
    Raises:
        ConfigError: plain weights are given, and nothing builds their model.
    """
    weights = Path(place).is_file() and not (place.endswith(".safetensors") and "rsconvert" in read_header(place))
    if Path(place).exists() and not weights:
        return load_among(place, function)
    if not weights:
        return create_model(place, pretrained=not is_file_name(place))
    name = function or net.source.architecture
    if name is None or (function is None and is_file_name(name)):
        raise ConfigError(
            f"baseline {place} holds plain weights, and the network names no model of a library; its function is "
            "needed. Give it by --model FILE.py:FUNCTION."
        )
    kwargs = {key: value for key, value in net.source.model_kwargs.items() if key != "num_classes"}
    plain = create_model(name, weights=place, num_classes=net.source.num_classes, model_kwargs=kwargs)
    crop_pct = net.source.preprocessing.crop_pct
    alone = crop_pct[0] if isinstance(crop_pct, tuple) else crop_pct  # of the native one
    set_source(plain, replace(net.source, preprocessing=replace(net.source.preprocessing, crop_pct=alone)))
    return plain


def builder_of(net: SwitchableModel, function: str | None) -> Callable[[], nn.Module] | None:
    """Return what makes a plain model as the network was made; None if its name is unknown."""
    source, kwargs = net.source, dict(net.source.model_kwargs)
    name, given = function or source.architecture, kwargs.pop("num_classes", None)
    if name is None:
        return None
    classes = given if is_file_name(source.architecture or "") else source.num_classes
    return partial(create_model, name, num_classes=classes, model_kwargs=kwargs)
