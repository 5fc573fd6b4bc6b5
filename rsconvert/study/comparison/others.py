"""Other networks of a comparison: what one may take in place of switching, such as a narrower network of a library."""

from collections.abc import Sequence
from pathlib import Path

from rsconvert.checkpoint import load
from rsconvert.errors import ConfigError
from rsconvert.surgery import SwitchableModel
from rsconvert.wrapping import wrap

__all__ = ["load_others"]


def load_others(names: Sequence[str], net: SwitchableModel) -> dict[str, SwitchableModel]:
    """Return networks for the native size of ``net`` by name.

    Args:
        names: checkpoints; or models as for ``wrap``, which get their pretrained weights and the outputs of ``net``.
    Raises:
        ConfigError: a name comes twice.
        UnsupportedModelError, ResolutionError, CheckpointError: as ``load`` and ``wrap``.
    """
    found: dict[str, SwitchableModel] = {}
    for text in names:
        place = Path(text).exists()
        name = Path(text).name.removesuffix(".safetensors").removesuffix(".rs") if place else text
        if name in found:
            raise ConfigError(f"against has {name} twice; each network needs a name of its own.")
        found[name] = load(text) if place else wrap(text, (net.native,), num_classes=net.source.num_classes)
    return found
