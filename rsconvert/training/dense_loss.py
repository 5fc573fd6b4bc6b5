"""MRED on dense logits: the views' logits have grids of their own, and are brought to one another's before the loss."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rsconvert.data import Grid
from rsconvert.errors import ConfigError
from rsconvert.training.loss import MREDLoss, mred_loss, teaching

__all__ = ["at_grid", "dense_mred_loss", "split_masks"]


def dense_mred_loss(
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    alpha: Tensor,
    mode: str = "full",
    *,
    ignore_index: int,
    teacher: Tensor | None = None,
    native_weight: float = 1.0,
    **labels: Any,
) -> MREDLoss:
    """Return ``mred_loss`` of logits with grids of their own.

    With one target all logits are resized to its grid, bilinearly, and share one loss (RS-Nets, App. B). With a target
    for each view, view s learns on its own grid: its cross entropy is that of its own mask, its teachers, the larger
    views and the ensemble, are resized to its grid; alpha learns on the grid of the largest view. Without a labelled
    position the loss is 0.

    Args:
        logits: S tensors (N, C, h, w), from the largest to the smallest resolution.
        targets: classes (N, H, W) at one grid, or at that of each view.
        labels: ``label_smoothing`` and ``class_weights``, as of ``mred_loss``.
    Raises:
        ConfigError: as ``mred_loss``; there are neither one nor S targets, or a teacher with S.
    """
    if len(targets) not in (1, len(logits)):
        raise ConfigError(f"there are {len(targets)} targets for {len(logits)} views; one or as many are accepted.")
    if not any((target != ignore_index).any() for target in targets):
        zero = sum(z.sum() for z in logits) * 0.0 + alpha.sum() * 0.0
        return MREDLoss(zero, zero.detach(), zero.detach(), zero.detach())
    shared = {"native_weight": native_weight, "ignore_index": ignore_index, **labels}
    if len(targets) == 1:
        grid = _grid(targets[0])
        own = None if teacher is None else at_grid(teacher, grid)
        return mred_loss([at_grid(z, grid) for z in logits], targets[0], alpha, mode, teacher=own, **shared)
    if teacher is not None:
        raise ConfigError("teacher is set with loss_grid native; largest is accepted. Leave one out.")
    return _by_view(logits, targets, alpha, mode, shared)


def split_masks(target: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
    """Return the masks (N, h, w) at several grids out of what a loader gives: (N, H, W) for one, else (N, K)."""
    if len(grids) == 1:
        return [target]
    parts = torch.split(target, [height * width for height, width in grids], dim=1)
    return [part.reshape(-1, *grid) for part, grid in zip(parts, grids, strict=True)]


def at_grid(logits: Tensor, grid: Grid) -> Tensor:
    """Return logits (N, C, h, w) at a grid, bilinearly; half precision becomes float32."""
    promoted = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if promoted.shape[-2:] == grid:
        return promoted
    return F.interpolate(promoted, grid, mode="bilinear", align_corners=False)


def _grid(target: Tensor) -> Grid:
    return target.shape[-2], target.shape[-1]


def _by_view(
    logits: Sequence[Tensor], targets: Sequence[Tensor], alpha: Tensor, mode: str, shared: dict[str, Any]
) -> MREDLoss:
    zero, ignore = alpha.new_zeros(1), shared["ignore_index"]
    classification = torch.zeros((), device=alpha.device)
    for place, (z, target) in enumerate(zip(logits, targets, strict=True)):
        own = shared if place == 0 else {**shared, "native_weight": 1.0}
        if (target != ignore).any():
            classification = (
                classification + mred_loss([at_grid(z, _grid(target))], target, zero, "none", **own).classification
            )
    first = _grid(targets[0])
    mixed = [at_grid(z.detach(), first) for z in logits]
    if not (targets[0] != ignore).any():
        ensemble = alpha.sum() * 0.0  # with a gradient, for other processes wait for one
    else:
        ensemble = mred_loss(mixed, targets[0], alpha, "none", **shared).ensemble
    distillation = _distillation(logits, targets, alpha, mode, ignore)
    return MREDLoss(classification + ensemble + distillation, classification, ensemble, distillation)


def _distillation(
    logits: Sequence[Tensor], targets: Sequence[Tensor], alpha: Tensor, mode: str, ignore_index: int
) -> Tensor:
    """Return the sum of KL(p_t ‖ p_s) over the teachers of each view, on its grid, with the factor of the mode."""
    views = len(logits)
    chosen, factor = teaching(mode, views)
    scores = alpha.detach().softmax(0)
    total = torch.zeros((), device=alpha.device)
    for s, (z, target) in enumerate(zip(logits, targets, strict=True), start=1):
        valid = target != ignore_index
        grid = _grid(target)
        known = [at_grid(other.detach(), grid) for other in logits]
        ensemble = sum(score * other for score, other in zip(scores.to(known[0]), known, strict=True))
        student = at_grid(z, grid).log_softmax(1)
        for t in (t for t in chosen if t < s and valid.any()):
            teacher = (ensemble if t == 0 else known[t - 1]).log_softmax(1)
            each = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
            total = total + each[valid].mean()
    return factor * total
