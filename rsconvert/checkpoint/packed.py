"""Tensors of quantized convolutions in a file: codes of K bits and bases in place of weights."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rsconvert.checkpoint.tensors import Entry, read_tensors
from rsconvert.errors import CheckpointError
from rsconvert.quantization import FLOAT_BITS, TRAINING_BUFFERS, pack_weight, quantized_convolutions, unpack_weight

__all__ = ["CODES", "bytes_by_part", "check_codes", "packed_state", "read_unpacked"]

_OTHER_SET = re.compile(r"(^|\.)at\.\d+\.")
_NONE = Entry("", ())
# The name of a weight's codes, next to its basis.
CODES = "weight_codes"


def packed_state(
    net: nn.Module, tensors: Mapping[str, Tensor], aliases: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return what a file holds of a network's tensors and of their further names.

    Raises:
        UnsupportedModelError: a weight was changed and is on none of its levels.
    """
    packed, dropped = dict(tensors), set[str]()
    for name, conv in quantized_convolutions(net).items():
        weight = packed.pop(f"{name}.weight")
        packed[f"{name}.{CODES}"] = pack_weight(weight, conv.weight_basis, f"{name}.weight")
        dropped |= {f"{name}.{key}" for key in TRAINING_BUFFERS}
    kept = {alias: name for alias, name in aliases.items() if name not in dropped}
    return {name: tensor for name, tensor in packed.items() if name not in dropped}, kept


def check_codes(entries: Mapping[str, Entry], quantized: Mapping[str, tuple[int, int]]) -> None:
    """Check the packed weights in a header against what the metadata says of them.

    Args:
        quantized: convolution → its numbers of bits (weights, activations).
    Raises:
        ValueError: others are packed, or with other numbers of bits.
    """
    packed = {name.removesuffix(f".{CODES}") for name in entries if name.endswith(f".{CODES}")}
    if differing := sorted(packed ^ quantized.keys()):
        raise ValueError(f"quantized and its tensors disagree on {differing[0]}")
    for name, bits in quantized.items():
        weight, inputs = (entries.get(f"{name}.{key}", _NONE).shape for key in ("weight_basis", "activation.basis"))
        if (weight[-1:], inputs or (FLOAT_BITS,)) != (bits[:1], bits[1:]):
            raise ValueError(f"quantized says {bits[0]}/{bits[1]} of {name}, whose bases are {weight} and {inputs}")


def read_unpacked(
    path: str | Path, model: nn.Module, layers: Collection[str], names: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Return the tensors that a network, or a plain model of it, has by those names; of all names by default.

    Args:
        model: has the shapes of the weights.
        layers: the quantized convolutions of the file.
    Raises:
        CheckpointError: as ``read_tensors``; codes and bases do not fit the model.
    """
    own = {f"{name}.weight": f"{name}.{CODES}" for name in layers}
    stored = None if names is None else [own.get(name, name) for name in names]
    bases = [f"{name}.weight_basis" for name in layers]
    tensors = read_tensors(path, None if stored is None else [*stored, *bases])
    for name in layers:
        codes, basis = tensors.pop(f"{name}.{CODES}", None), tensors.get(f"{name}.weight_basis")
        if codes is None or basis is None:
            raise CheckpointError(
                f"{path} lacks {name}.{CODES} or {name}.weight_basis, which its metadata names as quantized; both are "
                "needed. Write the file again."
            )
        try:
            tensors[f"{name}.weight"] = unpack_weight(codes, basis, model.get_parameter(f"{name}.weight").shape)
        except ValueError as error:
            raise CheckpointError(
                f"{path} does not fit {type(model).__name__}: {error} of {name}. Check the model and its arguments."
            ) from error
        tensors[f"{name}.weight_moment"] = torch.zeros_like(basis)
        tensors[f"{name}.weight_updates"] = torch.zeros((), dtype=torch.int64)
    return tensors


def bytes_by_part(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the bytes of a file's tensors: codes, bases, BN sets and other private tensors, and what else is float."""
    owners = {name.removesuffix("running_var") for name in tensors if name.endswith("running_var")}
    activations = tuple(f"{name.removesuffix(CODES)}activation." for name in tensors if name.endswith(f".{CODES}"))
    parts = dict.fromkeys(("codes", "bases", "native_batchnorm", "other_sets", "float"), 0)
    for name, tensor in tensors.items():
        owner = name[: name.rfind(".") + 1]
        if name.endswith(f".{CODES}"):
            part = "codes"
        elif name.endswith(".weight_basis") or name.startswith(activations):
            part = "bases"
        elif _OTHER_SET.search(name):
            part = "other_sets"
        else:
            part = "native_batchnorm" if owner in owners else "float"
        parts[part] += tensor.nbytes
    return {part: size for part, size in parts.items() if size}
