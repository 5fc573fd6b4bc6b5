"""Weights of K bits take K bits, and come back with the same bits."""

import numpy as np
import pytest
import torch

from rsconvert.errors import UnsupportedModelError
from rsconvert.quantization.lq import quantize_filters
from rsconvert.quantization.packing import pack_weight, packed_bytes, unpack_weight

SHAPE = torch.Size((5, 3, 3, 3))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 8])
def test_what_is_packed_comes_back(bits: int) -> None:
    torch.manual_seed(bits)
    basis = torch.rand(5, bits)
    weight = quantize_filters(torch.randn(SHAPE), basis).to(memory_format=torch.channels_last)
    codes = pack_weight(weight, basis)
    assert codes.numel() == packed_bytes(SHAPE, bits) == -(-135 * bits // 8)
    assert torch.equal(unpack_weight(codes, basis, SHAPE), weight)


def test_a_reader_without_this_package_needs_few_lines() -> None:
    torch.manual_seed(0)
    basis = torch.rand(5, 3)
    weight = quantize_filters(torch.randn(SHAPE), basis)
    codes = pack_weight(weight, basis).numpy()
    bits = np.unpackbits(codes, bitorder="little")[: weight.numel() * 3].reshape(5, 27, 3)
    signs = 2.0 * bits - 1
    np.testing.assert_allclose((signs * basis.numpy()[:, None]).sum(2), weight.flatten(1).numpy(), atol=1e-6)


@pytest.mark.parametrize("basis", [[[0.5, 0.5]], [[0.0, 0.0]], [[-0.3, 0.7]], [[0.7, 0.7, -0.7]]])
def test_equal_levels_and_negative_numbers_come_back(basis: list[list[float]]) -> None:
    own = torch.tensor(basis)
    weight = quantize_filters(torch.tensor([[-2.0, -0.1, 0.0, 0.1, 2.0]]), own)
    assert torch.equal(unpack_weight(pack_weight(weight, own), own, weight.shape), weight)


def test_a_weight_between_levels_is_refused() -> None:
    basis = torch.rand(5, 2)
    weight = quantize_filters(torch.randn(SHAPE), basis)
    weight[1, 0, 0, 0] += 1e-3
    with pytest.raises(UnsupportedModelError, match=r"^conv1\.weight was changed after it was quantized.*4 levels"):
        pack_weight(weight, basis, "conv1.weight")
    with pytest.raises(UnsupportedModelError, match=r"^conv1\.weight is float16, in which its levels are rounded: not"):
        pack_weight(weight.half(), basis.half(), "conv1.weight")


@pytest.mark.parametrize(
    ("codes", "basis", "word"),
    [
        (torch.zeros(33, dtype=torch.uint8), torch.rand(5, 2), "codes"),
        (torch.zeros(34, dtype=torch.int8), torch.rand(5, 2), "codes"),
        (torch.zeros(34, dtype=torch.uint8), torch.rand(4, 2), "basis"),
        (torch.zeros(34, dtype=torch.uint8), torch.rand(5), "basis"),
        (torch.zeros(34, dtype=torch.uint8), torch.rand(5, 9), "basis"),
        (torch.zeros(34, dtype=torch.uint8), torch.ones(5, 2, dtype=torch.int64), "basis"),
    ],
)
def test_what_does_not_fit_is_refused(codes: torch.Tensor, basis: torch.Tensor, word: str) -> None:
    with pytest.raises(ValueError, match=f"{word}"):
        unpack_weight(codes, basis, SHAPE)
