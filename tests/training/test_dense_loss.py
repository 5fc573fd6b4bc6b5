"""Dense MRED on unequal grids, against golden numbers, and each view's own grid against a plain computation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from rsconvert.errors import ConfigError
from rsconvert.training.dense_loss import dense_mred_loss, split_masks

GOLDEN = load_file(Path(__file__).with_name("dense.safetensors"))
NUMBERS = json.loads(Path(__file__).with_name("dense.json").read_text(encoding="utf-8"))


def case() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    logits = [GOLDEN[f"z{i}"].clone().requires_grad_() for i in range(3)]
    return logits, GOLDEN["t"].long(), GOLDEN["alpha"].clone().requires_grad_()


def test_the_loss_on_the_largest_grid_and_its_gradients_are_golden() -> None:
    logits, target, alpha = case()
    loss = dense_mred_loss(logits, [target], alpha, ignore_index=255)
    for name, value in NUMBERS.items():
        assert getattr(loss, name).item() == pytest.approx(value, abs=1e-9)
    loss.total.backward()
    for i, z in enumerate(logits):
        np.testing.assert_allclose(z.grad, GOLDEN[f"grad{i}"], atol=1e-9)
    np.testing.assert_allclose(alpha.grad, GOLDEN["grad_alpha"], atol=1e-9)


def test_without_labels_on_the_largest_view_alpha_has_a_gradient_of_zero() -> None:
    logits, target, alpha = case()
    masks = [target[:, :: 32 // z.shape[2], :: 32 // z.shape[3]][:, : z.shape[2], : z.shape[3]] for z in logits]
    loss = dense_mred_loss(logits, [torch.full_like(masks[0], 255), *masks[1:]], alpha, ignore_index=255)
    loss.total.backward()
    assert alpha.grad is not None
    assert not alpha.grad.any()
    assert loss.ensemble.item() == 0
    assert logits[1].grad.any()


def log_softmax(z: np.ndarray) -> np.ndarray:
    shifted = z - z.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def resized(z: torch.Tensor, grid: tuple[int, ...]) -> np.ndarray:
    return F.interpolate(z.detach(), grid, mode="bilinear", align_corners=False).numpy()


def test_each_view_s_own_grid_is_that_of_numpy() -> None:
    logits, target, alpha = case()
    masks = [target[:, :: 32 // z.shape[2], :: 32 // z.shape[3]][:, : z.shape[2], : z.shape[3]] for z in logits]
    loss = dense_mred_loss(logits, masks, alpha, ignore_index=255, native_weight=3.0)
    scores = np.exp(alpha.detach().numpy()) / np.exp(alpha.detach().numpy()).sum()
    classification = distillation = 0.0
    for s, (z, mask) in enumerate(zip(logits, masks, strict=True), start=1):
        y, grid = mask.numpy(), tuple(mask.shape[1:])
        valid = y != 255
        log_p = log_softmax(z.detach().numpy())
        picked = np.take_along_axis(log_p, np.where(valid, y, 0)[:, None], 1)[:, 0]
        classification += (3 if s == 1 else 1) * -picked[valid].mean()
        views = [resized(other, grid) for other in logits]
        teachers = [sum(a * v for a, v in zip(scores, views, strict=True)), *views[: s - 1]]
        for t in map(log_softmax, teachers):
            distillation += (np.exp(t) * (t - log_p)).sum(1)[valid].mean() * 2 / 4
    mixed = log_softmax(sum(a * resized(z, masks[0].shape[1:]) for a, z in zip(scores, logits, strict=True)))
    valid = masks[0].numpy() != 255
    picked = np.take_along_axis(mixed, np.where(valid, masks[0].numpy(), 0)[:, None], 1)[:, 0]
    assert loss.classification.item() == pytest.approx(classification, abs=1e-9)
    assert loss.ensemble.item() == pytest.approx(-picked[valid].mean(), abs=1e-9)
    assert loss.distillation.item() == pytest.approx(distillation, abs=1e-9)
    assert loss.total.item() == pytest.approx(classification - picked[valid].mean() + distillation, abs=1e-9)


@pytest.mark.parametrize("grids", [1, 3])
def test_without_a_labelled_position_nothing_is_learnt(grids: int) -> None:
    logits, target, alpha = case()
    masks = [torch.full((2, z.shape[2], z.shape[3]), 255) for z in logits] if grids == 3 else [target * 0 + 255]
    loss = dense_mred_loss(logits, masks, alpha, ignore_index=255)
    loss.total.backward()
    assert loss.total.item() == 0
    assert all(not z.grad.any() for z in (*logits, alpha))


def test_ignored_positions_change_nothing() -> None:
    logits, target, alpha = case()
    first = dense_mred_loss(logits, [target], alpha, ignore_index=255)
    other = dense_mred_loss(logits, [torch.where(target == 255, -7, target)], alpha, ignore_index=-7)
    assert torch.equal(first.total, other.total)


def test_masks_of_several_grids_come_in_one_vector() -> None:
    one = torch.arange(12).view(2, 2, 3)
    assert split_masks(one, [(2, 3)])[0] is one
    flat = torch.cat([one.flatten(1), torch.tensor([[50], [51]])], 1)
    masks = split_masks(flat, [(2, 3), (1, 1)])
    assert torch.equal(masks[0], one)
    assert masks[1].tolist() == [[[50]], [[51]]]


def test_a_wrong_number_of_masks_is_refused() -> None:
    logits, target, alpha = case()
    with pytest.raises(ConfigError, match="2 targets for 3 views; one or as many"):
        dense_mred_loss(logits, [target, target], alpha, ignore_index=255)
    with pytest.raises(ConfigError, match="teacher is set with loss_grid native"):
        dense_mred_loss(logits, [target] * 3, alpha, ignore_index=255, teacher=logits[0])
