"""The one switchable safetensors file; docs/checkpoint_format.md is its specification.

network → its tensors (`tensors`) with what is known of it (`metadata`) → file → the same network (`network`)
"""

from rsconvert.checkpoint.digest import digest
from rsconvert.checkpoint.metadata import FORMAT_VERSION, describe, read_metadata
from rsconvert.checkpoint.network import load, save, subset
from rsconvert.checkpoint.rsnets import fill_from_rsnets
from rsconvert.checkpoint.tensors import fill, read_header, read_tensors, replacing, sync, write_tensors

__all__ = [
    "FORMAT_VERSION",
    "describe",
    "digest",
    "fill",
    "fill_from_rsnets",
    "load",
    "read_header",
    "read_metadata",
    "read_tensors",
    "replacing",
    "save",
    "subset",
    "sync",
    "write_tensors",
]
