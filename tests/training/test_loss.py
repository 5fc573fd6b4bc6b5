"""The loss against independent ones, its gradients, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rsconvert.errors import ConfigError
from rsconvert.training.loss import MODES, MREDLoss, mred_loss

GOLDEN = json.loads(Path(__file__).with_name("mred_official.json").read_text())
SHAPES = {"classes": (6, 7), "dense": (2, 7, 3, 5)}
PARTS = ("classification", "ensemble", "distillation")

Case = tuple[list[Tensor], Tensor, Tensor]


def make_case(shape: tuple[int, ...], students: int = 4, dtype: torch.dtype = torch.float64) -> Case:
    """Logits, class indices with some ignored positions, alpha; leaves that require gradients."""
    generator = torch.Generator().manual_seed(3)
    logits = [torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).to(dtype) for _ in range(students)]
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    target[0] = -100
    alpha = torch.randn(students, generator=generator, dtype=torch.float64)
    return [z.requires_grad_() for z in logits], target, alpha.requires_grad_()


def pairs_of(mode: str, students: int) -> tuple[float, list[tuple[int, int]]]:
    """The factor and the (teacher, student) pairs of each mode, written out."""
    every = [(t, s) for s in range(1, students + 1) for t in range(s)]
    keep: dict[str, tuple[float, Callable[[int], bool]]] = {
        "full": (2 / (students + 1), lambda t: True),
        "vanilla": (1.0, lambda t: t == 0),
        "top-down": (2 / (students + 1), lambda t: t > 0),
        "largest": (1.0, lambda t: t == 1),
        "none": (0.0, lambda t: False),
    }
    factor, teaches = keep[mode]
    return factor, [(t, s) for t, s in every if teaches(t)]


def make_teacher(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64).mul(3)


def numpy_parts(
    logits: list[Tensor], target: Tensor, alpha: Tensor, mode: str, teacher: Tensor | None = None
) -> list[float]:
    kept = (target != -100).flatten().numpy()

    def rows(z: Tensor) -> np.ndarray:
        return z.detach().movedim(1, -1).flatten(0, -2).numpy()[kept]

    z = np.stack([rows(t) for t in logits])
    labels = target.flatten().numpy()[kept]
    scores = np.exp(alpha.detach().numpy())
    z = np.concatenate([np.tensordot(scores / scores.sum(), z, 1)[None], z])
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    ce = -log_p[:, np.arange(len(labels)), labels].mean(1)
    if teacher is not None:
        log_p[0] = rows(teacher) - np.log(np.exp(rows(teacher)).sum(-1, keepdims=True))
    factor, pairs = pairs_of(mode, len(logits))
    kl = factor * sum((np.exp(log_p[t]) * (log_p[t] - log_p[s])).sum(-1).mean() for t, s in pairs)
    return [ce.sum() + kl, ce[1:].sum(), ce[0], kl]


def pairwise_total(
    logits: list[Tensor], target: Tensor, alpha: Tensor, mode: str, teacher: Tensor | None = None
) -> Tensor:
    """Autograd's own way to the gradients: one kl_div per pair, teachers detached."""
    ensemble = sum((a * z.detach() for a, z in zip(alpha.softmax(0), logits, strict=True)), torch.zeros(()))
    kept = (target != -100).unsqueeze(1)
    total = sum((F.cross_entropy(z, target) for z in (ensemble, *logits)), torch.zeros(()))
    log_p = [z.log_softmax(1) for z in (ensemble if teacher is None else teacher, *logits)]
    factor, pairs = pairs_of(mode, len(logits))
    for t, s in pairs:
        kl = F.kl_div(log_p[s], log_p[t].detach(), reduction="none", log_target=True)
        total = total + factor * (kl * kept).sum() / kept.sum()
    return total


def gradients(loss: Tensor, logits: list[Tensor], alpha: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, (*logits, alpha), retain_graph=True)


def assert_near(actual: object, expected: object, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("mode", ["full", "vanilla"])
@pytest.mark.parametrize("stacked", [True, False])
def test_equals_the_public_release(mode: str, stacked: bool) -> None:
    expected = GOLDEN["modes"][mode]
    logits = torch.tensor(GOLDEN["logits"], dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor(GOLDEN["alpha"], dtype=torch.float64, requires_grad=True)
    loss = mred_loss(logits if stacked else list(logits), torch.tensor(GOLDEN["target"]), alpha, mode)
    torch.autograd.backward(loss.total)
    assert {name: getattr(loss, name).item() for name in MREDLoss._fields} == pytest.approx(
        {name: expected[name] for name in MREDLoss._fields}, abs=1e-9
    )
    assert_near(logits.grad, torch.tensor(expected["grad_logits"], dtype=torch.float64))
    assert_near(alpha.grad, torch.tensor(expected["grad_alpha"], dtype=torch.float64))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("students", [1, 2, 4])
def test_equals_the_pairwise_form(mode: str, shape: tuple[int, ...], students: int) -> None:
    logits, target, alpha = make_case(shape, students)
    loss = mred_loss(logits, target, alpha, mode)
    assert [part.item() for part in loss] == pytest.approx(numpy_parts(logits, target, alpha, mode), abs=1e-9)
    expected = gradients(pairwise_total(logits, target, alpha, mode), logits, alpha)
    assert_near(gradients(loss.total, logits, alpha), expected)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("mode", ["full", "vanilla"])
@pytest.mark.parametrize("students", [1, 2, 3, 4, 5])
def test_a_teacher_takes_the_ensembles_place(mode: str, shape: tuple[int, ...], students: int) -> None:
    logits, target, alpha = make_case(shape, students)
    teacher = make_teacher(shape)
    loss = mred_loss(logits, target, alpha, mode, teacher=teacher)
    assert [part.item() for part in loss] == pytest.approx(numpy_parts(logits, target, alpha, mode, teacher), abs=1e-9)
    expected = gradients(pairwise_total(logits, target, alpha, mode, teacher), logits, alpha)
    assert_near(gradients(loss.total, logits, alpha), expected)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("mode", ["full", "vanilla"])
@pytest.mark.parametrize("students", [1, 2, 3, 4, 5])
def test_without_labels_the_teacher_alone_teaches(mode: str, shape: tuple[int, ...], students: int) -> None:
    logits, target, alpha = make_case(shape, students)
    teacher, every = make_teacher(shape), target.where(target != -100, 0)
    total, classification, ensemble, distillation = mred_loss(logits, None, alpha, mode, teacher=teacher)
    assert distillation.item() == pytest.approx(numpy_parts(logits, every, alpha, mode, teacher)[-1], abs=1e-9)
    assert [classification.item(), ensemble.item(), total.item()] == [0, 0, distillation.item()]
    assert not torch.stack([classification, ensemble]).signbit().any(), "-0 would be printed"
    *by_logits, by_alpha = gradients(total, logits, alpha)
    labelled = mred_loss(logits, every, alpha, mode, teacher=teacher).distillation
    assert_near(by_logits, list(gradients(labelled, logits, alpha)[:-1]))
    assert not by_alpha.count_nonzero()


@pytest.mark.parametrize("mode", MODES)
def test_only_students_learn_from_distillation(mode: str) -> None:
    logits, target, alpha = make_case((6, 7))
    found = gradients(mred_loss(logits, target, alpha, mode).distillation, logits, alpha)
    students = {s - 1 for _, s in pairs_of(mode, len(logits))[1]}
    assert {i for i, grad in enumerate(found) if grad.count_nonzero()} == students


def test_ensemble_trains_alpha_alone() -> None:
    logits, target, alpha = make_case((2, 7, 3, 5))
    loss = mred_loss(logits, target, alpha)
    *by_logits, by_alpha = gradients(loss.ensemble, logits, alpha)
    assert not any(grad.count_nonzero() for grad in by_logits)
    assert by_alpha.count_nonzero() == len(alpha)
    assert not gradients(loss.classification + loss.distillation, logits, alpha)[-1].count_nonzero()
    assert torch.equal(gradients(loss.total, logits, alpha)[-1], by_alpha)


def test_parallel_training_learns_from_cross_entropies_alone() -> None:
    logits, target, alpha = make_case((6, 7))
    found = gradients(mred_loss(logits, target, alpha, "none").total, logits, alpha)[:-1]
    assert_near(found, torch.autograd.grad([F.cross_entropy(z, target) for z in logits], logits), 1e-15)


def test_ignored_positions_get_no_gradient() -> None:
    logits, target, alpha = make_case((2, 7, 3, 5))
    assert not any(
        grad[0].count_nonzero() for grad in gradients(mred_loss(logits, target, alpha).total, logits, alpha)[:-1]
    )


def test_one_resolution_has_nothing_to_distil() -> None:
    logits, target, alpha = make_case((6, 7), students=1)
    for mode in MODES:
        loss = mred_loss(logits, target, alpha, mode)
        assert loss.distillation == 0
        assert not any(grad.count_nonzero() for grad in gradients(loss.distillation, logits, alpha))


def test_equal_predictions_distil_to_an_exact_zero() -> None:
    z = make_case((64, 100), students=1, dtype=torch.float32)[0][0].detach()
    loss = mred_loss([z, z, z], torch.zeros(64, dtype=torch.long), torch.ones(3), "top-down")
    assert loss.distillation == 0
    for views in ([z], [z, z, z]):
        assert mred_loss(views, None, torch.ones(len(views)), teacher=z).total == 0


def test_a_teacher_gets_no_gradient() -> None:
    logits, target, alpha = make_case((6, 7))
    teacher = make_teacher((6, 7)).requires_grad_()
    total = mred_loss(logits, target, alpha, teacher=teacher).total
    assert torch.autograd.grad(total, teacher, allow_unused=True) == (None,)


def test_gradients_agree_with_finite_differences() -> None:
    # Only where no teacher depends on the input: a detached one moves in a finite difference.
    logits, target, alpha = make_case((2, 3, 2, 2), students=3)

    def part(name: str, mode: str) -> Callable[..., Tensor]:
        return lambda *inputs: getattr(mred_loss(inputs[:3], target, inputs[3], mode), name)

    frozen = [z.detach() for z in logits]
    assert torch.autograd.gradcheck(part("classification", "full"), (*logits, alpha.detach()))
    assert torch.autograd.gradcheck(part("ensemble", "full"), (*frozen, alpha))
    assert torch.autograd.gradcheck(part("distillation", "largest"), (frozen[0], *logits[1:], alpha.detach()))
    assert torch.autograd.gradcheck(part("distillation", "top-down"), (*frozen[:2], logits[2], alpha.detach()))


@pytest.mark.parametrize(("mode", "students"), [("full", 1), ("vanilla", 1), ("vanilla", 3)])
def test_gradients_under_a_teacher_agree_with_finite_differences(mode: str, students: int) -> None:
    logits, _, alpha = make_case((2, 3, 2, 2), students)
    teacher = make_teacher((2, 3, 2, 2))
    assert torch.autograd.gradcheck(
        lambda *views: mred_loss(views, None, alpha.detach(), mode, teacher=teacher).total, logits
    )


def test_a_weighted_sum_of_parts_adds_their_gradients() -> None:
    logits, target, alpha = make_case((6, 7))
    loss = mred_loss(logits, target, alpha)
    factors = (0.5, 2.0, 3.0)
    apart = [gradients(getattr(loss, name), logits, alpha) for name in PARTS]
    expected = tuple(
        sum(f * grad for f, grad in zip(factors, grads, strict=True)) for grads in zip(*apart, strict=True)
    )
    weighted = sum((f * getattr(loss, name) for f, name in zip(factors, PARTS, strict=True)), torch.zeros(()))
    assert_near(gradients(weighted, logits, alpha), expected, 1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_native_weight_counts_the_first_cross_entropy_more(mode: str) -> None:
    logits, target, alpha = make_case((6, 7))
    plain, heavy = (mred_loss(logits, target, alpha, mode, native_weight=weight) for weight in (1.0, 4.0))
    more = 3 * F.cross_entropy(logits[0], target)
    assert_near(heavy.classification, plain.classification + more, 1e-12)
    assert_near(heavy[2:], plain[2:], 0)
    expected = gradients(plain.total + more, logits, alpha)
    assert_near(gradients(heavy.total, logits, alpha), expected, 1e-12)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_cross_entropy_is_torchs(shape: tuple[int, ...], soft: bool, weighted: bool, label_smoothing: float) -> None:
    logits, target, alpha = make_case(shape)
    if soft:
        target = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = torch.linspace(0.2, 3, 7, dtype=torch.float64) if weighted else None
    plain = mred_loss(logits, target, alpha)
    loss = mred_loss(logits, target, alpha, label_smoothing=label_smoothing, class_weights=weights)
    ensemble = sum((a * z.detach() for a, z in zip(alpha.softmax(0), logits, strict=True)), torch.zeros(()))
    ces = [F.cross_entropy(z, target, weights, label_smoothing=label_smoothing) for z in (ensemble, *logits)]
    classification = torch.stack(ces[1:]).sum()
    assert_near((loss.classification, loss.ensemble), (classification, ces[0]))
    found = gradients(loss.classification + loss.ensemble, logits, alpha)
    assert_near(found, gradients(classification + ces[0], logits, alpha))
    assert torch.equal(loss.distillation, plain.distillation)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_one_hot_probabilities_equal_indices(shape: tuple[int, ...], mode: str) -> None:
    logits, target, alpha = make_case(shape)
    target[0] = 2
    hot = F.one_hot(target, 7).movedim(-1, 1).double()
    assert_near(mred_loss(logits, hot, alpha, mode), mred_loss(logits, target, alpha, mode))


def test_probabilities_ignore_no_position() -> None:
    logits, _, alpha = make_case((6, 7))
    target = torch.zeros(6, 7).double()
    assert_near(mred_loss(logits, target, alpha, ignore_index=0), mred_loss(logits, target, alpha))
    assert mred_loss(logits, target, alpha).distillation > 0


def test_ignore_index_is_an_option() -> None:
    logits, target, alpha = make_case((2, 7, 3, 5))
    as_void = target.where(target != -100, 255).to(torch.uint8)
    assert_near(mred_loss(logits, as_void, alpha, ignore_index=255), mred_loss(logits, target, alpha))


def test_nothing_to_learn_from_is_nan_as_in_torch() -> None:
    logits, target, alpha = make_case((2, 7, 3, 5))
    assert all(part.isnan() for part in mred_loss(logits, torch.full_like(target, -100), alpha))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_half_precision_is_promoted_also_under_autocast(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    logits, target, alpha = make_case(shape, dtype=dtype)
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    copies = [z.detach().to(precise).requires_grad_() for z in logits]
    expected = mred_loss(copies, target, alpha)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mred_loss(logits, target, alpha)
        found = gradients(loss.total, logits, alpha)
    assert all(part.dtype == precise for part in loss)
    assert all(map(torch.equal, loss, expected))
    for grad, exact in zip(found, gradients(expected.total, copies, alpha), strict=True):
        assert torch.equal(grad, exact.to(grad.dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_teacher_takes_the_precision_of_the_views(dtype: torch.dtype) -> None:
    logits, target, alpha = make_case((6, 7), dtype=torch.float32)
    teacher = make_teacher((6, 7)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mred_loss(logits, target, alpha, teacher=teacher)
    assert all(map(torch.equal, loss, mred_loss(logits, target, alpha, teacher=teacher.float())))
    assert loss.total.dtype == torch.float32


def test_memory_layout_does_not_matter() -> None:
    logits, target, alpha = make_case((2, 7, 3, 5))
    last = [z.detach().to(memory_format=torch.channels_last).requires_grad_() for z in logits]
    loss, expected = mred_loss(last, target, alpha), mred_loss(logits, target, alpha)
    assert_near(loss, expected)
    assert_near(gradients(loss.total, last, alpha), gradients(expected.total, logits, alpha))


def test_inputs_stay_as_they_are() -> None:
    logits, target, alpha = make_case((2, 7, 3, 5))
    teacher = make_teacher((2, 7, 3, 5))
    inputs = (*logits, target, alpha, teacher)
    before = [tensor.detach().clone() for tensor in inputs]
    loss = mred_loss(logits, target, alpha, teacher=teacher)
    assert all(map(torch.equal, gradients(loss.total, logits, alpha), gradients(loss.total, logits, alpha)))
    assert all(map(torch.equal, inputs, before))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "ful"}, r"mode is 'ful'; full, vanilla, top-down, largest, none are accepted"),
        ({"alpha": torch.ones(3)}, r"alpha is torch.float32 of shape \(3,\); 2 logits need floats of shape \(2,\)"),
        ({"alpha": torch.ones(2).long()}, r"alpha is torch.int64"),
        ({"logits": []}, r"logits is empty"),
        ({"logits": [torch.ones(4, 3), torch.ones(4, 2)]}, r"logits have the shapes \[\(4, 3\), \(4, 2\)\]"),
        ({"logits": torch.ones(2, 4)}, r"logits have the shape \(4,\); \(N, C\) and \(N, C, H, W\)"),
        ({"logits": torch.ones(2, 0, 3)}, r"logits have the shape \(0, 3\); .* not empty"),
        ({"logits": torch.ones(2, 4, 3).long()}, r"logits have the dtypes \[torch.int64"),
        ({"target": torch.zeros(5).long()}, r"target is torch.int64 of shape \(5,\); integer classes of shape \(4,\)"),
        ({"target": torch.zeros(4)}, r"target is torch.float32 of shape \(4,\); .* probabilities of shape \(4, 3\)"),
        ({"target": torch.zeros(4, 3).long()}, r"target is torch.int64 of shape \(4, 3\)"),
        ({"target": torch.zeros(4).bool()}, r"target is torch.bool"),
        ({"class_weights": torch.ones(2)}, r"class_weights is .* shape \(2,\); 3 classes need floats of shape \(3,\)"),
        ({"label_smoothing": 1.5}, r"label_smoothing is 1.5; 0 to 1 is accepted"),
        ({"native_weight": 0.0}, r"native_weight is 0.0; a number above 0 is accepted"),
        ({"target": None, "teacher": torch.ones(4, 3), "native_weight": 2.0}, r"native_weight, .* have no effect"),
        ({"target": None}, r"target is None; without labels a teacher is needed"),
        ({"target": None, "teacher": torch.ones(4, 3), "label_smoothing": 0.1}, r"label_smoothing .* have no effect"),
        ({"target": None, "teacher": torch.ones(4, 3), "class_weights": torch.ones(3)}, r"class_weights have no eff"),
        ({"teacher": torch.ones(4, 3), "mode": "largest"}, r"teacher has no effect in mode largest; full and vanilla"),
        ({"teacher": torch.ones(4, 2)}, r"teacher is .* of shape \(4, 2\); float logits of shape \(4, 3\)"),
        ({"teacher": torch.ones(4, 3).long()}, r"teacher is torch.int64"),
    ],
)
def test_errors_say_what_is_accepted(change: dict[str, object], message: str) -> None:
    arguments = {"logits": torch.ones(2, 4, 3), "target": torch.zeros(4).long(), "alpha": torch.ones(2)}
    with pytest.raises(ConfigError, match=message) as caught:
        mred_loss(**(arguments | change))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
