"""What a switchable file may ask for, checked in its header before anything is built: numbers, shapes, types."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

from rsconvert.checkpoint.tensors import Entry
from rsconvert.models import bounded

__all__ = ["LARGEST_SIDE", "MOST_RESOLUTIONS", "built_within", "check_entries", "check_kwargs", "check_sides"]

MOST_RESOLUTIONS, LARGEST_SIDE = 64, 2**14
_LARGEST_NUMBER = 10**6  # among the arguments of a model
_FLOATS = ("F16", "BF16", "F32", "F64")
_HALVES = ("F16", "BF16")
# Values for each byte of a file, of which weights of one bit have eight; what a small network has in any case.
_VALUES_PER_BYTE, _FEW_VALUES = 8, 2**24
_TENSORS_PER_ENTRY, _FEW_TENSORS = 4, 1000


def check_sides(name: str, sides: Sequence[Any]) -> None:
    """Raise a ValueError for too many resolutions, or too large ones."""
    if len(sides) > MOST_RESOLUTIONS or any(isinstance(side, int) and side > LARGEST_SIDE for side in sides):
        raise ValueError(
            f"{name} holds {len(sides)} numbers up to {max(sides)}; at most {MOST_RESOLUTIONS} resolutions of at most "
            f"{LARGEST_SIDE} pixels are accepted"
        )


def check_kwargs(value: Any) -> None:
    """Raise a ValueError for an argument of a model that is a vast number: a depth, a width, a size."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_kwargs(inner)
    if isinstance(value, (int, float)) and not abs(value) <= _LARGEST_NUMBER:
        raise ValueError(f"model_kwargs holds {value}; numbers up to {_LARGEST_NUMBER} are accepted")


def check_entries(entries: Mapping[str, Entry], resolutions: Sequence[int], num_classes: int | None) -> None:
    """Check the tensors of a file against its metadata and each other.

    Raises:
        ValueError: alpha is none for the resolutions; there are more classes than values; floating tensors have types
            that can't run together, or a set another type than the native one.
    """
    alpha = entries.get("rsconvert.alpha")
    if alpha is None or alpha.shape != (len(resolutions),) or alpha.dtype not in _FLOATS:
        raise ValueError(f"it has no rsconvert.alpha with a number for each of {tuple(resolutions)}")
    values = sum(prod(entry.shape) for entry in entries.values())
    if num_classes is not None and num_classes > values:
        raise ValueError(f"num_classes is {num_classes}, more than its {values} values")
    _check_types(entries)


def _check_types(entries: Mapping[str, Entry]) -> None:
    """Floating tensors have one type; those of layers without a matrix may be float32 where that is a half one."""
    floating = {name: entry.dtype for name, entry in entries.items() if entry.dtype.startswith(("F", "BF"))}
    floating.pop("rsconvert.alpha", None)
    if strange := [f"{name} is {kind}" for name, kind in floating.items() if kind not in _FLOATS]:
        raise ValueError(f"{strange[0]}; {', '.join(_FLOATS)} are accepted")
    mixing = {_layer(name) for name in floating if len(entries[name].shape) > 1}
    inside = {name for name in floating if _layer(name) not in mixing}
    counts = Counter(kind for name, kind in floating.items() if name not in inside) or Counter(floating.values())
    common = max(counts, key=counts.__getitem__, default="F32")
    for name, kind in floating.items():
        if kind != common and not (name in inside and kind == "F32" and common in _HALVES):
            raise ValueError(f"{name} is {kind} where the others are {common}; floating tensors have one type")
        if (native := floating.get(_native(name), kind)) != kind:
            raise ValueError(f"{name} is {kind} and of the native set {native}; the sets have one type")


def _layer(name: str) -> str:
    return _native(name).rpartition(".")[0]


def _native(name: str) -> str:
    """Return the name of a private tensor in the native set."""
    return re.sub(r"(^|\.)at\.\d+\.", r"\1", name)


@contextmanager
def built_within(entries: Mapping[str, Entry], size: int, copies: int) -> Iterator[None]:
    """Let the models of a file be built as large as the file allows.

    Args:
        size: of the file, in bytes.
        copies: how many models are built.
    """
    values, tensors = max(_FEW_VALUES, _VALUES_PER_BYTE * size), _FEW_TENSORS + _TENSORS_PER_ENTRY * len(entries)
    with bounded(copies * values, copies * tensors):
        yield
