"""Backward passes of one batch: all views at once, or view by view with the memory of the largest.

Both give the same gradients: with the logits z_1 … z_S known, the gradient of the loss at each z_s is known in closed
form, so one view after the other can be computed again and taken back through the network.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from rsconvert.training.loss import MREDLoss
from rsconvert.training.step.objective import Logits, Objective, drawn_places

__all__ = ["backward", "backward_by_view", "generator_states", "kept_buffers", "set_generators"]

Scale = Callable[[Tensor], Tensor]


def backward(
    forward: Callable[[Sequence[Tensor], Tensor], MREDLoss],
    objective: Objective,
    views: Sequence[Tensor],
    target: Tensor,
    scale: Scale,
) -> MREDLoss:
    """Add the gradients of one batch by one forward over all views.

    Args:
        forward: the objective, or what distributes it.
        scale: of the total, by which the gradients are multiplied.
    """
    loss = forward(views, target)
    with _still(objective):
        torch.autograd.backward(scale(loss.total))
    return loss


def backward_by_view(objective: Objective, views: Sequence[Tensor], target: Tensor, scale: Scale) -> MREDLoss:
    """Add the same gradients with the graph of one view at a time.

    The first view keeps its graph; the others run once without one, leave no trace in statistics, and run again for
    their gradient with the same random numbers.
    """
    largest = objective.logits(0, views[0])
    outputs, replays = [_detached(largest)], []
    _, *others = drawn_places(views)
    for place in others:
        path = objective.net.at(objective.net.resolutions[place])
        replays.append(generator_states(views[place].device))
        with torch.no_grad(), kept_buffers(path):
            outputs.append(_detached(objective.logits(place, views[place])))
    leaves = [[z.requires_grad_() for z in own] for own in outputs]
    loss = objective.loss(leaves, views, target)
    torch.autograd.backward(scale(loss.total))
    _take_back(objective, largest, leaves[0])
    del largest
    for place, states, leaf in zip(others, replays, leaves[1:], strict=True):
        with _restored_generators(states, views[place].device):
            logits = objective.logits(place, views[place])
        _take_back(objective, logits, leaf)
        del logits
    return MREDLoss(*(part.detach() for part in loss))


def _take_back(objective: Objective, logits: Logits, leaves: Logits) -> None:
    pairs = [
        (z, leaf.grad) for z, leaf in zip(logits, leaves, strict=True) if z.requires_grad and leaf.grad is not None
    ]
    if pairs:
        with _still(objective):
            torch.autograd.backward([z for z, _ in pairs], [grad.to(z.dtype) for z, grad in pairs])


def _detached(logits: Logits) -> Logits:
    return [z.detach() for z in logits]


def _still(objective: Objective) -> AbstractContextManager[None]:
    """With checkpoints the backward pass runs the forward again, which would move the statistics a second time."""
    return kept_buffers(objective.net) if objective.config.grad_checkpointing else nullcontext()


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Give all buffers, such as BatchNorm's statistics, their values back at the end."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    yield
    with torch.no_grad():
        for buffer, value in before:
            buffer.copy_(value)


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the global generators that dropout draws from: the CPU's and, for a GPU, its own."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_generators(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Go on from given states; a generator without one is left as it is."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


@contextmanager
def _restored_generators(states: Mapping[str, Tensor], device: torch.device) -> Iterator[None]:
    """Draw from given states; at the end the generators go on from where they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        set_generators(states, device)
        yield
