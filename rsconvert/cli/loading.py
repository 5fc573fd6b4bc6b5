"""A checkpoint's network, built by its name or by the function that the caller names."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rsconvert.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from rsconvert.surgery import SwitchableModel

__all__ = ["load_among", "load_baselines", "load_network", "network_name"]


def load_network(place: str, model: str | None) -> "SwitchableModel":
    """Return the network of a place, see ``rsconvert.load``; ``model`` is FILE.py:FUNCTION, or None for a library's."""
    from rsconvert import load
    from rsconvert.checkpoint import load_with

    return load(place) if model is None else load_with(place, model)


def load_among(place: str, model: str | None) -> "SwitchableModel":
    """Return one of several networks: built by the library's name in its file, or else by the function ``model``."""
    from rsconvert.checkpoint import file_of, names_library, read_metadata

    checkpoint = file_of(place)
    return load_network(checkpoint, None if names_library(read_metadata(checkpoint).source) else model)


def load_baselines(
    texts: Sequence[str], net: "SwitchableModel", checkpoint: str, model: str | None
) -> dict[str, "nn.Module"]:
    """Return the networks that are measured beside ``net``, by name.

    A text is a checkpoint, the folder of a run, a file of plain weights for the network's own architecture and
    preprocessing, or a model as for ``wrap``, with its pretrained weights; ``NAME=`` before it names its column.
    """
    found: dict[str, nn.Module] = {}
    for text in texts:
        name, _, place = ("", "", text) if Path(text).exists() or "=" not in text else text.partition("=")
        name = name or network_name(place)
        if name in found:
            raise ConfigError(f"baseline {name} is given twice; each needs a name of its own. Write NAME={place}.")
        found[name] = _baseline(place, net, checkpoint, model)
    return found


def network_name(place: str) -> str:
    """Return what a network is called after its file or folder."""
    return Path(place).name.removesuffix(".safetensors").removesuffix(".rs")


def _baseline(place: str, net: "SwitchableModel", checkpoint: str, model: str | None) -> "nn.Module":
    from rsconvert import create_model
    from rsconvert.checkpoint import read_header
    from rsconvert.models import is_file_name, set_source

    weights = Path(place).is_file() and not (place.endswith(".safetensors") and "rsconvert" in read_header(place))
    if Path(place).exists() and not weights:
        return load_among(place, model)
    if not weights:
        return create_model(place, pretrained=not is_file_name(place))
    name = model or net.source.architecture
    if name is None or (model is None and is_file_name(name)):
        raise ConfigError(
            f"baseline {place} holds plain weights, and {checkpoint} names no model of a library; its function is "
            "needed. Give it by --model FILE.py:FUNCTION."
        )
    kwargs = {key: value for key, value in net.source.model_kwargs.items() if key != "num_classes"}
    plain = create_model(name, weights=place, num_classes=net.source.num_classes, model_kwargs=kwargs)
    crop_pct = net.source.preprocessing.crop_pct
    alone = crop_pct[0] if isinstance(crop_pct, tuple) else crop_pct  # of the native one
    set_source(plain, replace(net.source, preprocessing=replace(net.source.preprocessing, crop_pct=alone)))
    return plain
