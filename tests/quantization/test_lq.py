"""The quantizers against numbers of the paper's release, and against a NumPy version."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rsconvert.quantization.lq import (
    average_basis,
    basis_of_average,
    fit_basis,
    grid_of,
    initial_activation_basis,
    initial_weight_basis,
    nearest,
    quantize_filters,
    step_function,
)

CASES = json.loads(Path(__file__).with_name("lq_cases.json").read_text(encoding="utf-8"))["cases"]
NAMES = [case["name"] for case in CASES]


def numpy_step(x: Any, v: Any, signed: bool) -> tuple[Any, Any]:
    """The values on their levels, and the basis fitted to them, of one filter: loops, and a plain inverse."""
    bits = len(v)
    codes = [[(number >> j) & 1 for j in range(bits)] for number in reversed(range(2**bits))]
    table = np.array([[2 * bit - 1 for bit in code] if signed else code for code in codes], dtype=float)
    table = table[np.argsort(table @ v, kind="stable")]
    levels = table @ v
    places = [int(sum(value > (a + b) / 2 for a, b in zip(levels, levels[1:]))) for value in x]  # noqa: B905, RUF007
    digits = table[places]
    ridge = 1e-4 if signed else 0.0
    fitted = np.linalg.inv(digits.T @ digits + ridge * np.eye(bits)) @ (digits.T @ np.array(x) + ridge * v)
    return levels[places], fitted


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_three_chained_updates_give_the_numbers_of_the_release(case: dict[str, Any]) -> None:
    signed = case["kind"] == "weight"
    x = torch.tensor(case["x"], dtype=torch.float64)
    basis = torch.tensor(case["basis"], dtype=torch.float64)
    moment, updates = torch.zeros_like(basis), torch.zeros((), dtype=torch.int64)
    for step in case["steps"]:
        grid = grid_of(basis, signed=signed)
        places = nearest(x, grid)
        y = grid.levels.gather(-1, places)
        fitted = fit_basis(x, grid.codes.gather(-1, places), basis, signed=signed)
        average_basis(moment, fitted, updates)
        found = {"levels": grid.levels, "thresholds": grid.thresholds, "y": y, "fitted": fitted}
        basis = found["basis_after"] = basis_of_average(moment, updates)
        for name, values in found.items():
            expected = torch.tensor(step[name], dtype=torch.float64)
            torch.testing.assert_close(values, expected, rtol=0, atol=1e-9, msg=f"{name} of {case['name']}")
        assert ((x - y) ** 2).sum().item() == pytest.approx(step["error"], abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_start_is_the_formula_of_the_release(case: dict[str, Any]) -> None:
    if not case["default_basis"]:
        pytest.skip("the case gives its own")
    if case["kind"] == "weight":
        filters = case["out_channels"]
        scale = torch.full((filters,), (2 / (case["kernel"] ** 2 * filters)) ** 0.5, dtype=torch.float64)
        made = initial_weight_basis(scale, case["bits"])
    else:
        made = initial_activation_basis(case["bits"]).double()
    torch.testing.assert_close(made, torch.tensor(case["basis"], dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("signed", [True, False])
def test_numpy_agrees_on_random_values(bits: int, signed: bool) -> None:
    rng = np.random.default_rng(bits)
    x = rng.normal(size=60) if signed else np.abs(rng.normal(size=200))
    v = rng.uniform(0.1, 1, size=bits)
    grid = grid_of(torch.from_numpy(v), signed=signed)
    places = nearest(torch.from_numpy(x), grid)
    fitted = fit_basis(torch.from_numpy(x), grid.codes[places], torch.from_numpy(v), signed=signed)
    values, expected = numpy_step(x, v, signed)
    np.testing.assert_allclose(grid.levels[places].numpy(), values, atol=1e-12)
    np.testing.assert_allclose(fitted.numpy(), expected, atol=1e-8)


def test_a_bit_that_is_never_set_keeps_its_number() -> None:
    basis = torch.tensor([0.5, 4.0])
    x = torch.tensor([0.0, 0.1, 0.6, 0.7])
    grid = grid_of(basis, signed=False)
    fitted = fit_basis(x, grid.codes[nearest(x, grid)], basis, signed=False)
    torch.testing.assert_close(fitted, torch.tensor([0.65, 4.0]))


def test_bits_that_are_always_set_together_share_their_sum() -> None:
    basis, x = torch.tensor([0.5, 0.5]), torch.tensor([0.0, 2.0, 3.0])
    fitted = fit_basis(x, torch.tensor([0, 3, 3]), basis, signed=False)
    torch.testing.assert_close(fitted.sum(), torch.tensor(2.5))
    assert fitted.isfinite().all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_what_lies_on_its_levels_stays_there_bit_for_bit(bits: int) -> None:
    torch.manual_seed(bits)
    weight, basis = torch.randn(5, 4, 3, 3), torch.rand(5, bits)
    once = quantize_filters(weight, basis)
    assert torch.equal(quantize_filters(once, basis), once)
    assert all(len(row.unique()) <= 2**bits for row in once.flatten(1))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_comparisons_find_the_same_level_also_on_thresholds(bits: int) -> None:
    torch.manual_seed(bits)
    basis = torch.rand(bits)
    grid = grid_of(basis, signed=False)
    x = torch.cat([3 * torch.rand(2, 50), grid.thresholds.expand(2, -1), grid.levels.expand(2, -1)], dim=1)
    assert torch.equal(step_function(x, basis), grid.levels[nearest(x, grid)])


def test_the_memory_format_does_not_matter() -> None:
    weight, basis = torch.randn(5, 4, 3, 3), torch.rand(5, 2)
    other: Tensor = quantize_filters(weight.to(memory_format=torch.channels_last), basis)
    assert torch.equal(other, quantize_filters(weight, basis))


def test_a_filter_of_zeros_stays_zero() -> None:
    weight = torch.zeros(2, 3, 3, 3)
    basis = initial_weight_basis(torch.zeros(2), 2)
    assert torch.equal(quantize_filters(weight, basis), weight)
    codes = torch.full((2, 27), 3)
    assert torch.equal(fit_basis(weight.flatten(1), codes, basis, signed=True), basis)
