"""The one switchable safetensors file; docs/checkpoint_format.md is its specification.

network → its tensors (`tensors`) with what is known of it (`metadata`) → file → the same network (`file`)
a place → its file (`places`)
"""

from rsconvert.checkpoint.baselines import builder_of, load_among, load_baseline
from rsconvert.checkpoint.file import load, load_alongside, load_with, save, subset, write_network
from rsconvert.checkpoint.inspection import inspection_text
from rsconvert.checkpoint.metadata import describe, names_library, read_metadata
from rsconvert.checkpoint.ownership import clear, holds_nothing, left_behind, owned, scratch, temporary
from rsconvert.checkpoint.places import PUBLISHED, file_of, loading_note, warn_of_loading
from rsconvert.checkpoint.rsnets import fill_from_rsnets
from rsconvert.checkpoint.tensors import digest, fill, read_header, read_tensors, replacing, sync, write_tensors

__all__ = [
    "PUBLISHED",
    "builder_of",
    "clear",
    "describe",
    "digest",
    "file_of",
    "fill",
    "fill_from_rsnets",
    "holds_nothing",
    "inspection_text",
    "left_behind",
    "load",
    "load_alongside",
    "load_among",
    "load_baseline",
    "load_with",
    "loading_note",
    "names_library",
    "owned",
    "read_header",
    "read_metadata",
    "read_tensors",
    "replacing",
    "save",
    "scratch",
    "subset",
    "sync",
    "temporary",
    "warn_of_loading",
    "write_network",
    "write_tensors",
]
