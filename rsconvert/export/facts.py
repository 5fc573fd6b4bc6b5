"""What the user of a plain file must know of its images."""

from typing import Any

from rsconvert.evaluation import crop_shares
from rsconvert.surgery import SwitchableModel

__all__ = ["image_facts"]


def image_facts(net: SwitchableModel, resolution: int) -> dict[str, Any]:
    """Return the preprocessing of one resolution and what is known of the classes, as plain data."""
    preprocessing, names = net.source.preprocessing, net.source.class_names
    return {
        "architecture": net.source.architecture,
        "num_classes": net.source.num_classes,
        "resolution": resolution,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "interpolation": preprocessing.interpolation,
        "crop_pct": crop_shares(preprocessing, net.resolutions, [resolution])[0],
        "class_names": None if names is None else list(names),
    }
