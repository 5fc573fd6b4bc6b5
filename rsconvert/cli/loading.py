"""The networks that the texts of a command line mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rsconvert.cli import options
from rsconvert.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from rsconvert.surgery import SwitchableModel

__all__ = ["load_baselines", "load_network", "log_loading", "network_name"]


def load_network(place: str, model: str | None) -> "SwitchableModel":
    """Return the network of a place, see ``rsconvert.load``; ``model`` is FILE.py:FUNCTION, or None for a library's.

    A line on stderr says if its values are not finite.
    """
    from rsconvert import load
    from rsconvert.checkpoint import load_with
    from rsconvert.evaluation import unsound_values

    net = load(place) if model is None else load_with(place, model)
    if (line := unsound_values(net)) is not None:
        options.log(f"note: of {place} {line}")
    return net


def load_baselines(texts: Sequence[str], net: "SwitchableModel", model: str | None) -> dict[str, "nn.Module"]:
    """Return the networks that are compared with ``net``, by name: that of the file, or NAME of NAME=PLACE."""
    from rsconvert.checkpoint import load_baseline

    found: dict[str, nn.Module] = {}
    for text in texts:
        name, _, place = ("", "", text) if Path(text).exists() or "=" not in text else text.partition("=")
        name = name or network_name(place)
        if name in found:
            raise ConfigError(f"baseline {name} is given twice; each needs a name of its own, such as NAME={place}.")
        found[name] = _onnx(place, net) if place.endswith(".onnx") else load_baseline(place, net, model)
    return found


def _onnx(place: str, net: "SwitchableModel") -> "nn.Module":
    from rsconvert.export import onnx_network

    return onnx_network(place, net)


def network_name(place: str) -> str:
    """Return what a network is called after its file or folder."""
    return Path(place).name.removesuffix(".safetensors").removesuffix(".rs")


def log_loading(net: "SwitchableModel") -> None:
    """Print a line on stderr if a file of the network will not be enough to load it."""
    from rsconvert.checkpoint import loading_note

    if (note := loading_note(net)) is not None:
        options.log(f"note: {note}")
