"""What the loss accepts: modes, shapes, dtypes."""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from rsconvert.errors import ConfigError
from rsconvert.settings import Distillation

__all__ = ["MODES", "check_inputs"]

MODES = get_args(Distillation)


def check_inputs(
    logits: Sequence[Tensor],
    target: Tensor | None,
    alpha: Tensor,
    mode: str,
    teacher: Tensor | None,
    label_smoothing: float,
    class_weights: Tensor | None,
) -> None:
    """Refuse arguments of ``mred_loss`` that do not fit together.

    Raises:
        ConfigError: a value is unknown or out of range, a shape or dtype does not fit, or an argument has no effect.
    """
    _check_logits(logits)
    _check_settings(logits, alpha, mode, label_smoothing, class_weights)
    shape = logits[0].shape
    if teacher is not None:
        _check_teacher(teacher, shape, mode)
    if target is not None:
        _check_target(target, shape)
    elif teacher is None or label_smoothing or class_weights is not None:
        raise ConfigError(
            "target is None; without labels a teacher is needed, and label_smoothing and class_weights have no effect. "
            "Pass labels, or the teacher's logits alone."
        )


def _check_logits(logits: Sequence[Tensor]) -> None:
    shapes = [tuple(z.shape) for z in logits]
    if not shapes:
        raise ConfigError("logits is empty; one tensor per resolution is needed. Pass at least one.")
    if len(set(shapes)) > 1:
        raise ConfigError(
            f"logits have the shapes {shapes}; all resolutions need one shape. Give all the same classes."
        )
    if len(shapes[0]) not in (2, 4) or 0 in shapes[0]:
        raise ConfigError(
            f"logits have the shape {shapes[0]}; (N, C) and (N, C, H, W), not empty, are accepted. "
            "Pass one such tensor per resolution, as a list or stacked."
        )
    if not all(z.is_floating_point() for z in logits):
        raise ConfigError(f"logits have the dtypes {[z.dtype for z in logits]}; floats are accepted. Convert them.")


def _check_settings(
    logits: Sequence[Tensor], alpha: Tensor, mode: str, label_smoothing: float, class_weights: Tensor | None
) -> None:
    students, classes = len(logits), logits[0].shape[1]
    if mode not in MODES:
        raise ConfigError(f"mode is {mode!r}; {', '.join(MODES)} are accepted. Choose one of them.")
    if not 0 <= label_smoothing <= 1:
        raise ConfigError(f"label_smoothing is {label_smoothing}; 0 to 1 is accepted. Choose a share such as 0.1.")
    if alpha.shape != (students,) or not alpha.is_floating_point():
        raise ConfigError(
            f"alpha is {_described(alpha)}; {students} logits need floats of shape ({students},). "
            "Give one score per resolution."
        )
    if class_weights is not None and (class_weights.shape != (classes,) or not class_weights.is_floating_point()):
        raise ConfigError(
            f"class_weights is {_described(class_weights)}; {classes} classes need floats of shape ({classes},). "
            "Give one weight per class."
        )


def _check_target(target: Tensor, shape: torch.Size) -> None:
    indices, is_float = (shape[0], *shape[2:]), target.is_floating_point()
    wrong_dtype = target.is_complex() or target.dtype == torch.bool
    if wrong_dtype or target.shape != (shape if is_float else indices):
        raise ConfigError(
            f"target is {_described(target)}; integer classes of shape {indices} or float probabilities of shape "
            f"{tuple(shape)} are accepted. Give one label per sample or position."
        )


def _check_teacher(teacher: Tensor, shape: torch.Size, mode: str) -> None:
    if mode not in ("full", "vanilla"):
        raise ConfigError(f"teacher has no effect in mode {mode}; full and vanilla take one. Leave it out.")
    if teacher.shape != shape or not teacher.is_floating_point():
        raise ConfigError(
            f"teacher is {_described(teacher)}; float logits of shape {tuple(shape)} are accepted, as of one view. "
            "Give it the same classes."
        )


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"
