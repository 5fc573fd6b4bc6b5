"""What the user of a plain file must know of its images."""

from typing import Any

from rsconvert.surgery import SwitchableModel

__all__ = ["crop_pct_at", "image_facts"]


def crop_pct_at(net: SwitchableModel, resolution: int) -> float:
    """Return the crop_pct of a resolution, that of the nearest trained one."""
    crop_pct = net.source.preprocessing.crop_pct
    if not isinstance(crop_pct, tuple):
        return crop_pct
    nearest = min(net.resolutions, key=lambda own: abs(own - resolution))
    return crop_pct[net.resolutions.index(nearest)]


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
        "crop_pct": crop_pct_at(net, resolution),
        "class_names": None if names is None else list(names),
    }
