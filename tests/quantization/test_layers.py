"""Quantized convolutions: what they compute, what their gradients are, how a class comes and goes."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.quantization.layers import (
    ActivationQuantizer,
    can_quantize,
    dequantize_,
    fit_weights,
    quantize_layer,
    quantized_convolutions,
)
from rsconvert.quantization.lq import fit_basis, grid_of, nearest
from tests.quantization.test_lq import CASES

ACTIVATIONS = [case for case in CASES if case["kind"] == "activation"]


@pytest.mark.parametrize("case", ACTIVATIONS, ids=[case["name"] for case in ACTIVATIONS])
def test_three_steps_of_training_give_the_values_and_gradients_of_the_release(case: dict[str, Any]) -> None:
    quantizer = ActivationQuantizer(case["bits"]).double()
    quantizer.basis.copy_(torch.tensor(case["basis"], dtype=torch.float64))
    for step in case["steps"]:
        x = torch.tensor(case["x"], dtype=torch.float64, requires_grad=True)
        y = quantizer(x)
        y.sum().backward()
        assert y.tolist() == pytest.approx(step["y"], abs=1e-9)
        assert x.grad is not None
        assert x.grad.tolist() == step["grad"]
        quantizer.refresh()
        assert quantizer.basis.tolist() == pytest.approx(step["basis_after"], abs=1e-9)


def test_the_views_of_a_step_meet_the_same_levels_and_all_count() -> None:
    torch.manual_seed(0)
    quantizer = ActivationQuantizer(2).double()
    views, basis = [torch.rand(2, 3, side, side).double() for side in (4, 3, 2)], quantizer.basis.clone()
    average = torch.zeros(2, dtype=torch.float64)
    for view in views:
        quantizer(view)
        grid, flat = grid_of(basis, signed=False), view.flatten()
        average = 0.9 * average + 0.1 * fit_basis(flat, grid.codes[nearest(flat, grid)], basis, signed=False)
    assert torch.equal(quantizer.basis, basis)
    quantizer.refresh()
    torch.testing.assert_close(quantizer.basis, average / (1 - 0.9**3))


def test_evaluation_leaves_the_bases_alone() -> None:
    quantizer = ActivationQuantizer(3).eval()
    before = copy.deepcopy(quantizer.state_dict())
    with torch.no_grad():
        quantizer(torch.rand(4, 5))
    quantizer.refresh()
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


def test_half_precision_stays_half_precision() -> None:
    quantizer = ActivationQuantizer(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = quantizer(torch.rand(3, 4).bfloat16().requires_grad_())
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert quantizer.moment.dtype == torch.float32
    assert quantizer.updates == 1


@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
def test_a_quantized_convolution_is_one_of_its_class(kind: type[nn.Conv2d]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(kind(4, 6, 3, stride=2))
    plain, x = copy.deepcopy(model), torch.rand(2, 4, 9, 9)
    conv = quantize_layer(model[0], 2, 2)
    fit_weights(conv)
    conv.eval()
    assert isinstance(conv, kind)
    assert conv.bits == (2, 2)
    assert all(len(row.unique()) <= 4 for row in conv.weight.flatten(1))
    levels = grid_of(conv.activation.basis, signed=False)
    plain[0].weight.data = conv.weight.data
    assert torch.equal(model(x), plain(levels.levels[nearest(x, levels)]))
    with pytest.raises(UnsupportedModelError, match=r"^0 quantizes activations \(2/2 bits\).*2/32\) are accepted"):
        dequantize_(model)


def test_a_network_of_few_bit_weights_becomes_a_plain_one_again() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU())
    fit_weights(quantize_layer(model[0], 3, 32))
    expected = model(torch.ones(1, 4, 5, 5))
    plain = dequantize_(model)
    assert type(plain[0]) is nn.Conv2d
    assert list(plain.state_dict()) == ["0.weight", "0.bias"]
    assert quantized_convolutions(plain) == {}
    assert torch.equal(plain(torch.ones(1, 4, 5, 5)), expected)


def test_more_bits_are_nearer() -> None:
    torch.manual_seed(0)
    errors = []
    for bits in (1, 2, 3, 4):
        conv = nn.Conv2d(16, 8, 3)
        torch.manual_seed(1)
        nn.init.normal_(conv.weight)
        weight = conv.weight.detach().clone()
        fit_weights(quantize_layer(conv, bits, 32))
        errors.append(float(F.mse_loss(conv.weight.detach(), weight)))
    # Lloyd's best quantizers of a normal distribution with as many levels, which are free, reach these.
    best = (0.363, 0.1175, 0.0345, 0.0095)
    assert all(least * 0.9 < error < least * 1.6 for error, least in zip(errors, best, strict=True))


def test_only_convolutions_that_use_their_weight_as_it_is() -> None:
    class Own(nn.Conv2d):
        pass

    assert can_quantize(nn.Conv2d(3, 4, 3))
    assert not can_quantize(Own(3, 4, 3))
    assert not can_quantize(nn.Conv3d(3, 4, 3))
    assert not can_quantize(nn.Linear(3, 4))
