"""The switchable network: what the user holds, its layers, its paths, and the tree that it shows."""

from rsconvert.surgery.network.assembly import assemble, regroup
from rsconvert.surgery.network.attributes import Measured
from rsconvert.surgery.network.copying import copy_model, copy_structure, on_meta
from rsconvert.surgery.network.layer import (
    SwitchableBN,
    SwitchableHead,
    SwitchableLayer,
    interpolation_weights,
)
from rsconvert.surgery.network.parts import clear_caches
from rsconvert.surgery.network.private import is_head, size_dependent
from rsconvert.surgery.network.rebuilding import BUILD, WAYS, Build, build_like, builders, kwargs_at, rebuilt
from rsconvert.surgery.network.recognition import batchnorms, holds_running_statistics, is_batchnorm
from rsconvert.surgery.network.resolutions import (
    check_image,
    check_resolutions,
    check_stages,
    default_images,
    doubt,
    find_images,
    side_of,
    side_of_call,
    with_middles,
)
from rsconvert.surgery.network.switchable import SwitchableModel

__all__ = [
    "BUILD",
    "WAYS",
    "Build",
    "Measured",
    "SwitchableBN",
    "SwitchableHead",
    "SwitchableLayer",
    "SwitchableModel",
    "assemble",
    "batchnorms",
    "build_like",
    "builders",
    "check_image",
    "check_resolutions",
    "check_stages",
    "clear_caches",
    "copy_model",
    "copy_structure",
    "default_images",
    "doubt",
    "find_images",
    "holds_running_statistics",
    "interpolation_weights",
    "is_batchnorm",
    "is_head",
    "kwargs_at",
    "on_meta",
    "rebuilt",
    "regroup",
    "side_of",
    "side_of_call",
    "size_dependent",
    "with_middles",
]
