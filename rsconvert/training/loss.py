"""Multi-resolution ensemble distillation: the training loss of RS-Nets (Wang et al., ECCV 2020, Eqs. 5-10).

Every term is linear in the log-probabilities of the students once the teachers are detached, so the value and the
gradient at the logits have a closed form. With T the teachers of the mode, q_s = Σ_{t∈T, t<s} p_t and n_s their number:

    Σ_{t∈T} Σ_{s>t} KL(p_t ‖ p_s)  =  Σ_s (S-s+1) · <q_s, log p_{s-1} - log p_s>
    d/dz_s                         =  n_s·p_s - q_s

One softmax per resolution is enough, and a distillation of equal predictions is an exact zero, not a difference of
two large entropies.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rsconvert.errors import ConfigError
from rsconvert.settings import Distillation

__all__ = ["MODES", "MREDLoss", "mred_loss", "teaching"]

MODES = get_args(Distillation)


class MREDLoss(NamedTuple):
    """The loss and its three parts, scalars; ``total`` is their sum (Eq. 9).

    >>> views = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])
    >>> loss = mred_loss(views, torch.tensor([0]), torch.zeros(2), "largest")
    >>> [round(part.item(), 4) for part in loss]
    [1.4612, 0.8201, 0.3133, 0.3278]
    """

    total: Tensor
    classification: Tensor
    ensemble: Tensor
    distillation: Tensor


def mred_loss(
    logits: Sequence[Tensor] | Tensor,
    target: Tensor | None,
    alpha: Tensor,
    mode: str = "full",
    *,
    teacher: Tensor | None = None,
    native_weight: float = 1.0,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    ignore_index: int = -100,
) -> MREDLoss:
    """Return what the S resolutions of one batch have to learn from the labels and from each other.

    With z_0 = Σ_s softmax(alpha)_s · z_s the ensemble, p_s = softmax(z_s), and logits numbered from 1:

    - classification: Σ_s CE(z_s), Eq. 2, of which CE(z_1) counts ``native_weight`` times (1 in the paper);
    - ensemble: CE(z_0), Eqs. 5-6, with z_s detached;
    - distillation: ``full`` 2/(S+1) · Σ_{0<=t<s<=S} KL(p_t ‖ p_s), Eq. 10; ``vanilla`` Σ_s KL(p_0 ‖ p_s), Eq. 8;
      ``top-down`` is ``full`` without t = 0, same factor; ``largest`` Σ_{s>1} KL(p_1 ‖ p_s); ``none`` 0.

    Teachers are detached: logits learn from classification and distillation, alpha from the ensemble term alone.
    The total holds the ensemble term in every mode, so ``none`` trains the network exactly as parallel training does
    and still learns the importance scores.
    A teacher's logits give p_0 in the ensemble's place, also for a single resolution. Without labels the first two
    terms are exact zeros, and so is the gradient of alpha.

    Each term is a mean over the samples, for dense logits over all positions whose target is not ``ignore_index``;
    without any the loss is nan, as torch's is. Probability targets ignore no position and get no gradient.
    Half-precision logits are promoted to float32, float64 is kept, autocast is off inside.

    Args:
        logits: S tensors (N, C), or dense (N, C, H, W), from the largest to the smallest resolution; or one stack.
        target: class indices (N,) or (N, H, W), or probabilities of the logits' shape, or None with a teacher.
        alpha: the scores before softmax, (S,).
        teacher: logits of one view's shape, for ``full`` and ``vanilla``; detached.
        label_smoothing: in [0, 1]; like class_weights, (C,), as in torch's cross entropy, for those terms only.
    Raises:
        ConfigError: a value is unknown or out of range, a shape or dtype does not fit, or an argument has no effect.
    """
    views = list(logits)
    _check_inputs(views, target, alpha, mode, teacher, native_weight, label_smoothing, class_weights)
    with torch.autocast(views[0].device.type, enabled=False):
        views = _promoted(views)
        labels, share = _labels(target, views[0], class_weights, label_smoothing, ignore_index)
        outside = None if teacher is None else teacher.detach().to(views[0])
        teachers = teaching(mode, len(views), teacher is not None)
        weights = native_weight, labels, share, alpha.to(views[0].dtype).softmax(0)
        parts = _ClosedForm.apply(*teachers, *weights, outside, *views)
    return MREDLoss(parts[0] + parts[1] + parts[2], *parts)


def teaching(mode: str, students: int, outside: bool = False) -> tuple[range, float]:
    """Return which of p_0 ... p_{S-1} teach all smaller resolutions, and the factor of their divergences.

    Args:
        outside: whether p_0 is another network.
    """
    if students == 1 and not outside:
        # The ensemble of one is that one; its gradient would be rounding noise around zero.
        return range(0), 0.0
    mean = 2 / (students + 1)
    return {
        "full": (range(students), mean),
        "vanilla": (range(1), 1.0),
        "top-down": (range(1, students), mean),
        "largest": (range(1, 2), 1.0),
        "none": (range(0), 0.0),
    }[mode]


class _ClosedForm(torch.autograd.Function):
    """The three parts from one softmax per resolution; gradients are computed from the saved probabilities."""

    @staticmethod
    def forward(
        ctx: Any,
        teachers: range,
        factor: float,
        native_weight: float,
        labels: Tensor,
        share: Tensor,
        scores: Tensor,
        outside: Tensor | None,
        *logits: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        larger = _mixed(logits, scores).log_softmax(1)
        mixed = larger.exp()
        # From 0, for without labels -<0, log p> would be -0.
        ensemble = 0 - _inner(labels, larger)
        classification, distillation = torch.zeros_like(ensemble), torch.zeros_like(ensemble)
        if outside is not None:
            larger = outside.log_softmax(1)
        probabilities = [mixed if outside is None else larger.exp()]
        teaching = torch.zeros_like(larger)
        for s, z in enumerate(logits, start=1):
            if s - 1 in teachers:
                teaching.addcmul_(probabilities[-1], share)
            log_p = z.log_softmax(1)
            probabilities.append(log_p.exp())
            classification -= (native_weight if s == 1 else 1.0) * _inner(labels, log_p)
            if teachers and s > teachers[0]:
                # The last use of the larger resolution's log-probabilities: its memory takes the difference.
                distillation += (len(logits) - s + 1) * _inner(teaching, larger.sub_(log_p))
            larger = log_p
        ctx.teachers, ctx.factor, ctx.native_weight = teachers, factor, native_weight
        ctx.save_for_backward(labels, share, mixed, *probabilities, *logits)
        return classification, ensemble, factor * distillation

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        classification, ensemble, distillation = grads
        labels, share, mixed, *saved = ctx.saved_tensors
        probabilities, logits = saved[: len(saved) // 2 + 1], saved[len(saved) // 2 + 1 :]
        mass = labels.sum(1, keepdim=True)
        by_score = None
        if ctx.needs_input_grad[5]:
            error = torch.addcmul(-labels, mixed, mass)
            by_score = ensemble * torch.stack([_inner(error, z) for z in logits])
        # Labels teach as the larger resolutions do: each gives its probabilities and adds its weight to the student's.
        lesson, weight, each = labels * -classification, mass * classification, share * (distillation * ctx.factor)
        by_logits = []
        for s in range(1, len(probabilities)):
            if s - 1 in ctx.teachers:
                lesson.addcmul_(probabilities[s - 1], each, value=-1)
                weight = weight + each
            by_logits.append(torch.addcmul(lesson, probabilities[s], weight))
        if ctx.native_weight != 1:
            extra = (ctx.native_weight - 1) * classification
            by_logits[0] = by_logits[0] + extra * torch.addcmul(-labels, probabilities[1], mass)
        return None, None, None, None, None, by_score, None, *by_logits


def _mixed(logits: Sequence[Tensor], scores: Tensor) -> Tensor:
    ensemble = logits[0] * scores[0]
    for z, score in zip(logits[1:], scores[1:], strict=True):
        ensemble.addcmul_(z, score)
    return ensemble


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.reshape(-1), b.reshape(-1))


def _labels(
    target: Tensor | None, like: Tensor, class_weights: Tensor | None, label_smoothing: float, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Return y with torch's CE(z) = -<y, log softmax(z)>, and each position's share (N, 1, ...) in a plain mean."""
    if target is None:
        return torch.zeros_like(like), _even_share(like)
    weights = like.new_ones(like.shape[1]) if class_weights is None else class_weights.to(like)
    if target.is_floating_point():
        return _from_probabilities(target.to(like.dtype), weights, label_smoothing)
    return _from_indices(target.long(), like, weights, label_smoothing, ignore_index)


def _from_indices(
    target: Tensor, like: Tensor, weights: Tensor, label_smoothing: float, ignore_index: int
) -> tuple[Tensor, Tensor]:
    target = target.unsqueeze(1)
    valid = target != ignore_index
    index, counted = target.where(valid, 0), valid.to(like.dtype)
    weighted = weights[index] * counted
    # The labels' weights alone normalize, also what smoothing spreads over the other classes.
    total = weighted.sum()
    labels = torch.zeros_like(like).scatter_(1, index, weighted * ((1 - label_smoothing) / total))
    if label_smoothing:
        labels.addcmul_(_along_classes(weights, like) * (label_smoothing / len(weights)), counted / total)
    return labels, counted / counted.sum()


def _from_probabilities(target: Tensor, weights: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    # Here torch divides by the number of positions, whatever the class weights.
    share = _even_share(target)
    smooth = target * (1 - label_smoothing) + label_smoothing / len(weights)
    return smooth * _along_classes(weights, target) * share, share


def _even_share(like: Tensor) -> Tensor:
    return torch.full_like(like[:, :1], like.shape[1] / like.numel())


def _along_classes(weights: Tensor, like: Tensor) -> Tensor:
    return weights.view(-1, *[1] * (like.ndim - 2))


def _promoted(logits: Sequence[Tensor]) -> list[Tensor]:
    dtype = functools.reduce(torch.promote_types, (z.dtype for z in logits), torch.float32)
    return [z.to(dtype) for z in logits]


def _check_inputs(
    logits: Sequence[Tensor],
    target: Tensor | None,
    alpha: Tensor,
    mode: str,
    teacher: Tensor | None,
    native_weight: float,
    label_smoothing: float,
    class_weights: Tensor | None,
) -> None:
    _check_logits(logits)
    _check_settings(logits, alpha, mode, label_smoothing, class_weights)
    if not 0 < native_weight < math.inf:
        raise ConfigError(f"native_weight is {native_weight}; a number above 0 is accepted, such as 4.")
    shape = logits[0].shape
    if teacher is not None:
        _check_teacher(teacher, shape, mode)
    if target is not None:
        _check_target(target, shape)
    elif teacher is None or label_smoothing or class_weights is not None or native_weight != 1:
        raise ConfigError(
            "target is None; without labels a teacher is needed, and native_weight, label_smoothing and class_weights "
            "have no effect. Pass labels, or the teacher's logits alone."
        )


def _check_logits(logits: Sequence[Tensor]) -> None:
    shapes = [tuple(z.shape) for z in logits]
    if not shapes:
        raise ConfigError("logits is empty; one tensor per resolution is needed.")
    if len(set(shapes)) > 1:
        raise ConfigError(f"logits have the shapes {shapes}; all resolutions need one shape.")
    if len(shapes[0]) not in (2, 4) or 0 in shapes[0]:
        raise ConfigError(
            f"logits have the shape {shapes[0]}; (N, C) and (N, C, H, W), not empty, are accepted. "
            "Pass one such tensor per resolution, as a list or stacked."
        )
    if not all(z.is_floating_point() for z in logits):
        raise ConfigError(f"logits have the dtypes {[z.dtype for z in logits]}; floats are accepted.")


def _check_settings(
    logits: Sequence[Tensor], alpha: Tensor, mode: str, label_smoothing: float, class_weights: Tensor | None
) -> None:
    students, classes = len(logits), logits[0].shape[1]
    if mode not in MODES:
        raise ConfigError(f"mode is {mode!r}; {', '.join(MODES)} are accepted.")
    if not 0 <= label_smoothing <= 1:
        raise ConfigError(f"label_smoothing is {label_smoothing}; 0 to 1 is accepted, such as 0.1.")
    if alpha.shape != (students,) or not alpha.is_floating_point():
        raise ConfigError(
            f"alpha is {_described(alpha)}; {students} logits need floats of shape ({students},), one per resolution."
        )
    if class_weights is not None and (class_weights.shape != (classes,) or not class_weights.is_floating_point()):
        raise ConfigError(
            f"class_weights is {_described(class_weights)}; {classes} classes need floats of shape ({classes},)."
        )


def _check_target(target: Tensor, shape: torch.Size) -> None:
    indices, is_float = (shape[0], *shape[2:]), target.is_floating_point()
    wrong_dtype = target.is_complex() or target.dtype == torch.bool
    if wrong_dtype or target.shape != (shape if is_float else indices):
        raise ConfigError(
            f"target is {_described(target)}; integer classes of shape {indices} or float probabilities of shape "
            f"{tuple(shape)} are accepted, one label per sample or position."
        )


def _check_teacher(teacher: Tensor, shape: torch.Size, mode: str) -> None:
    if mode not in ("full", "vanilla"):
        raise ConfigError(f"teacher has no effect in mode {mode}; full and vanilla take one. Leave it out.")
    if teacher.shape != shape or not teacher.is_floating_point():
        raise ConfigError(
            f"teacher is {_described(teacher)}; float logits of shape {tuple(shape)} are accepted, as of one view."
        )


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"
