"""The one switchable safetensors file; docs/checkpoint_format.md is its specification.

network → its tensors (`tensors`) with what is known of it (`metadata`) → file → the same network (`network`)
a place → its file (`places`)
"""

from rsconvert.checkpoint.metadata import FORMAT_VERSION, describe, names_library, read_metadata
from rsconvert.checkpoint.network import load, load_beside, load_with, save, subset
from rsconvert.checkpoint.places import file_of
from rsconvert.checkpoint.rsnets import fill_from_rsnets
from rsconvert.checkpoint.tensors import fill, read_header, read_tensors, replacing, sync, write_tensors

__all__ = [
    "FORMAT_VERSION",
    "describe",
    "file_of",
    "fill",
    "fill_from_rsnets",
    "load",
    "load_beside",
    "load_with",
    "names_library",
    "read_header",
    "read_metadata",
    "read_tensors",
    "replacing",
    "save",
    "subset",
    "sync",
    "write_tensors",
]
