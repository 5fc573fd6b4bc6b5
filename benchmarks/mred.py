"""Time mred_loss against the pairwise form of Eq. 10, forward and backward, S = 5.

Both run alternately in one process; the ratio of the medians is what counts. The pairwise form writes the equation down
as it stands: a log_softmax, a softmax and a kl_div for each of the 15 pairs.

    python benchmarks/mred.py
"""

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from rsconvert.training.loss import mred_loss

STUDENTS = 5
CASES = (((64, 1000), 60), ((2, 40, 176, 176), 12))

Loss = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]


def pairwise_form(logits: Sequence[Tensor], target: Tensor, alpha: Tensor) -> Tensor:
    positions = target.numel()
    scores = alpha.softmax(0)
    ensemble = torch.stack([a * z.detach() for a, z in zip(scores, logits, strict=True)]).sum(0)
    loss = torch.stack([F.cross_entropy(z, target) for z in (ensemble, *logits)]).sum()
    for teacher, student in combinations((ensemble, *logits), 2):
        divergence = F.kl_div(F.log_softmax(student, 1), F.softmax(teacher.detach(), 1), reduction="sum") / positions
        loss = loss + 2 / (len(logits) + 1) * divergence
    return loss


def closed_form(logits: Sequence[Tensor], target: Tensor, alpha: Tensor) -> Tensor:
    return mred_loss(logits, target, alpha).total


def step_ms(loss: Loss, logits: Sequence[Tensor], target: Tensor, alpha: Tensor) -> float:
    for tensor in (*logits, alpha):
        tensor.grad = None
    start = time.perf_counter()
    torch.autograd.backward(loss(logits, target, alpha))
    return (time.perf_counter() - start) * 1000


def compare(shape: tuple[int, ...], repeats: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(shape, generator=generator).mul_(2).requires_grad_() for _ in range(STUDENTS)]
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    alpha = torch.ones(STUDENTS, requires_grad=True)
    case = (logits, target, alpha)
    torch.testing.assert_close(closed_form(*case), pairwise_form(*case), rtol=1e-5, atol=0)
    times = [(step_ms(pairwise_form, *case), step_ms(closed_form, *case)) for _ in range(repeats)]
    pairwise, closed = (statistics.median(column) for column in zip(*times, strict=True))
    name = "×".join(map(str, shape))
    print(f"{name:>14}  pairwise {pairwise:7.2f} ms  mred_loss {closed:6.2f} ms  ratio {pairwise / closed:.2f}")


if __name__ == "__main__":
    torch.set_num_threads(2)
    for shape, repeats in CASES:
        compare(shape, repeats)
