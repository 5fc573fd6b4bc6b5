"""Weights of quantized convolutions as a file holds them: K bits for a weight, and the basis of each filter.

``weight_codes`` holds the numbers of the codes one after the other, in the order of the weights (out, in, h, w), K bits
each, the lowest first, from the lowest bit of the first byte on; the last byte ends with zeros. Bit j of a code says
whether number j of the filter's basis is added or subtracted: weight = Σ_j (2 · bit_j - 1) · basis_j.
"""

import math

import numpy as np
import torch
from torch import Tensor

from rsconvert.errors import UnsupportedModelError
from rsconvert.quantization.lq import code_levels, grid_of, nearest

__all__ = ["pack_weight", "packed_bytes", "unpack_weight"]


def pack_weight(weight: Tensor, basis: Tensor, name: str = "the weight") -> Tensor:
    """Return the codes of weights (out, …) that lie on the levels of a basis (out, K), as bytes.

    Raises:
        UnsupportedModelError: a weight lies elsewhere, and would be another one in the file.
    """
    grid = grid_of(basis, signed=True)
    filters = weight.reshape(len(weight), -1)
    places = nearest(filters, grid)
    if not torch.equal(grid.levels.gather(1, places), filters):
        why = "was changed after it was quantized"
        if weight.dtype != torch.float32:
            why = f"is {str(weight.dtype).removeprefix('torch.')}, in which its levels are rounded"
        raise UnsupportedModelError(
            f"{name} {why}: not all of it lies on the {2 ** basis.shape[1]} levels of each filter, which the file "
            "holds. Save the network before that, or quantize it again: rsconvert.quantize_."
        )
    numbers = grid.codes.gather(1, places).flatten().cpu().numpy().astype(np.uint8)
    bits = (numbers[:, None] >> np.arange(basis.shape[1], dtype=np.uint8)) & 1
    return torch.from_numpy(np.packbits(bits.reshape(-1), bitorder="little"))


def unpack_weight(codes: Tensor, basis: Tensor, shape: torch.Size) -> Tensor:
    """Return the weights that `pack_weight` packed, with the same bits.

    Raises:
        ValueError: the codes or the basis are not those of a weight of this shape.
    """
    bits = basis.shape[1] if basis.ndim == 2 else 0
    if not 1 <= bits <= 8 or len(basis) != shape[0] or not basis.is_floating_point():
        raise ValueError(f"a basis is {tuple(basis.shape)} for {shape[0]} filters")
    if codes.dtype != torch.uint8 or codes.shape != (packed_bytes(shape, bits),):
        raise ValueError(f"codes are {codes.dtype}, {tuple(codes.shape)}, for weights {tuple(shape)} of {bits} bits")
    flat = np.unpackbits(codes.numpy(), count=shape.numel() * bits, bitorder="little").reshape(-1, bits)
    numbers = (flat.astype(np.int64) << np.arange(bits)).sum(1)
    places = torch.from_numpy(numbers).view(shape[0], -1)
    return code_levels(basis, signed=True).gather(1, places).view(shape)


def packed_bytes(shape: torch.Size, bits: int) -> int:
    """Return how many bytes the codes of a weight take."""
    return math.ceil(shape.numel() * bits / 8)
