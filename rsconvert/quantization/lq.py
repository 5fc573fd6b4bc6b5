"""LQ-Nets quantizers (Zhang et al., ECCV 2018): K-bit codes, and the basis of K numbers that gives them their levels.

Weights have codes of -1 and +1 and a basis per output filter; activations have codes of 0 and 1 and one basis. A level
is the product of a code and the basis. The basis is fitted by least squares to what it quantizes.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "DECAY",
    "Grid",
    "average_basis",
    "basis_of_average",
    "code_levels",
    "fit_basis",
    "grid_of",
    "initial_activation_basis",
    "initial_weight_basis",
    "nearest",
    "quantize_filters",
    "step_function",
]

# Of the moving average of a basis.
DECAY = 0.9
# Holds a fit of weights to the basis before it, as in the paper's release.
_RIDGE = 1e-4
# Decides a fit of activations where a bit is never set; elsewhere it is below rounding.
_TINY = 1e-12
# The third quartile of a normal distribution.
_QUARTILE = 0.6745


class Grid(NamedTuple):
    """What a basis gives: ``levels`` (…, 2^K) in ascending order, ``thresholds`` (…, 2^K - 1) between them.

    ``codes`` (…, 2^K) holds the number of each level's code, whose bit j belongs to number j of the basis; of equal
    levels the larger code comes first.
    """

    levels: Tensor
    thresholds: Tensor
    codes: Tensor


def initial_weight_basis(scale: Tensor, bits: int) -> Tensor:
    """Return the basis (out, K) for filters of a typical size: 2^j · 0.6745 · scale / 2^(K-1).

    Args:
        scale: (out,); the release takes √(2 / (k · k · out)) for a k×k convolution as it is initialised.
    """
    powers: Tensor = 2.0 ** torch.arange(bits, dtype=scale.dtype, device=scale.device)
    return scale[:, None] * powers * (_QUARTILE / 2.0 ** (bits - 1))


def initial_activation_basis(bits: int) -> Tensor:
    """Return the basis (K,) for activations whose size is not known: 2^j · 2 · 0.6745 / (2^K - 1)."""
    powers: Tensor = 2.0 ** torch.arange(bits)
    return powers * (2 * _QUARTILE / (2.0**bits - 1))


def grid_of(basis: Tensor, *, signed: bool) -> Grid:
    """Return the levels of a basis (…, K), of codes of -1 and +1 if ``signed``, else of 0 and 1."""
    last = 2 ** basis.shape[-1] - 1
    # From the largest code down, an order that a stable sort keeps for equal levels.
    levels, order = code_levels(basis, signed=signed).flip(-1).sort(dim=-1, stable=True)
    return Grid(levels, (levels[..., 1:] + levels[..., :-1]) / 2, last - order)


def code_levels(basis: Tensor, *, signed: bool) -> Tensor:
    """Return the level of each code by its number, (…, 2^K), with the same bits wherever it is computed."""
    bits, zero = basis.shape[-1], -1 if signed else 0
    # A constant, which every exporter knows, other than arithmetic with bits.
    table = [[1 if number >> j & 1 else zero for j in range(bits)] for number in range(2**bits)]
    digits = torch.tensor(table, dtype=basis.dtype, device=basis.device)
    levels = digits[:, 0] * basis[..., :1]
    for j in range(1, bits):  # one after the other: a library's sum may have another order elsewhere
        levels = levels + digits[:, j] * basis[..., j : j + 1]
    return levels


def nearest(x: Tensor, grid: Grid) -> Tensor:
    """Return the place of each value's level in a grid; a value on a threshold goes down.

    Args:
        x: of any shape for a grid of one basis; (out, n) for one of ``out`` filters.
    """
    return torch.searchsorted(grid.thresholds.contiguous(), x.contiguous())


def step_function(x: Tensor, basis: Tensor) -> Tensor:
    """Return the level of each activation, as `nearest` finds it, by operators that ONNX has: for few levels."""
    levels = code_levels(basis, signed=False).topk(2 ** len(basis), largest=False).values
    y = levels[0].expand(x.shape)
    for low, high in itertools.pairwise(levels.unbind()):
        y = torch.where(x > (high + low) / 2, high, y)
    return y


def fit_basis(x: Tensor, codes: Tensor, basis: Tensor, *, signed: bool) -> Tensor:
    """Return the basis (…, K) whose levels come nearest to values (…, n), given their codes; it solves in float64.

    Weights: (BᵀB + 1e-4 · I)⁻¹ (Bᵀx + 1e-4 · v). Activations: (BᵀB)⁻¹ Bᵀx, and v for what no code decides.

    Args:
        codes: the number of each value's code.
        basis: v, (…, K), by which the values got these codes.
    """
    digits = _digits(codes, basis.shape[-1], signed).to(x.dtype)
    gram = (digits.mT @ digits).double()
    cross = (digits.mT @ x[..., None]).double()
    ridge = _RIDGE if signed else _TINY * x.shape[-1]
    held = ridge * torch.eye(basis.shape[-1], dtype=torch.float64, device=x.device)
    solved: Tensor = torch.linalg.solve(gram + held, cross + ridge * basis[..., None].double())
    return solved[..., 0].to(basis.dtype)


def average_basis(moment: Tensor, fitted: Tensor, updates: Tensor) -> None:
    """Take a fitted basis into a moving average in place, m ← 0.9 m + 0.1 v, and count it."""
    moment.mul_(DECAY).add_(fitted, alpha=1 - DECAY)
    updates.add_(1)


def basis_of_average(moment: Tensor, updates: Tensor) -> Tensor:
    """Return m / (1 - 0.9^t) after t updates: without the share of the zeros that the average started from."""
    share: Tensor = 1 - DECAY ** updates.double()
    return (moment.double() / share).to(moment.dtype)


def quantize_filters(weight: Tensor, basis: Tensor) -> Tensor:
    """Return weights (out, …) on the levels of their filters' bases (out, K)."""
    grid = grid_of(basis, signed=True)
    places = nearest(weight.reshape(len(weight), -1), grid)
    return grid.levels.gather(1, places).view(weight.shape)


def _digits(codes: Tensor, bits: int, signed: bool) -> Tensor:
    """Return the K digits of each code number, (…, K)."""
    digits = (codes[..., None] >> torch.arange(bits, device=codes.device)) & 1
    return 2 * digits - 1 if signed else digits
