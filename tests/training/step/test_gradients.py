"""Gradients view by view are those of all views at once; nothing moves twice; generators are restored."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.training.step.gradients import (
    _restored_generators,
    backward,
    backward_by_view,
    generator_states,
    kept_buffers,
    set_generators,
)
from rsconvert.training.step.objective import Objective

TARGET = torch.tensor([0, 2, 1, 2])
MakeNet = Callable[..., SwitchableModel]


def views_of(net: SwitchableModel, drawn: tuple[int, ...] = (32, 24, 16)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(4, 3, r, r, generator=generator, dtype=torch.float64) for r in net.resolutions]
    return [view if view.shape[-1] in drawn else view[..., :0, :0] for view in views]


def gradients(objective: Objective) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in objective.net.named_parameters() if p.grad is not None}


def buffers(net: nn.Module) -> dict[str, Tensor]:
    return {name: b.clone() for name, b in net.named_buffers()}


def both_ways(net: SwitchableModel, config: FinetuneConfig) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """The gradients, and the buffers afterwards, of all views at once and view by view, from the same generators."""
    found: tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]] = ([], [])
    for by_view in (False, True):
        own = copy.deepcopy(net)
        objective = Objective(own, config).train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            if by_view:
                loss = backward_by_view(objective, views_of(own), TARGET, lambda total: total / 2)
            else:
                loss = backward(objective, objective, views_of(own), TARGET, lambda total: total / 2)
            drawn = torch.rand(1, dtype=torch.float64)
        found[0].append({**gradients(objective), "loss": loss.total.detach()})
        found[1].append({**buffers(own), "next draw": drawn})
    return found


@pytest.mark.parametrize("train", ["all", "bn", "head"])
@pytest.mark.parametrize(("dropout", "private"), [(0.0, True), (0.5, True), (0.5, ("bn", "head"))])
@pytest.mark.parametrize("resolutions", [(32, 24, 16), (32, 28, 24, 20, 16)], ids=["all", "drawn"])
def test_view_by_view_gives_the_same_gradients(
    make_net: MakeNet, train: str, dropout: float, private: object, resolutions: tuple[int, ...]
) -> None:
    net = make_net(resolutions, dropout=dropout, private=private).double()
    (whole, by_view), (moved, moved_by_view) = both_ways(net, FinetuneConfig(train=train))  # type: ignore[arg-type]
    assert whole.keys() == by_view.keys()
    assert len(whole) > 3
    for name, gradient in whole.items():
        torch.testing.assert_close(by_view[name], gradient, rtol=1e-10, atol=1e-12, msg=name)
    for name, value in moved.items():
        assert torch.equal(moved_by_view[name], value), name


def test_the_scale_multiplies_the_gradients(make_net: MakeNet) -> None:
    net = make_net().double()
    for run in (backward_by_view, lambda objective, *rest: backward(objective, objective, *rest)):
        found = []
        for scale in (1.0, 8.0):
            objective = Objective(copy.deepcopy(net), FinetuneConfig()).train()
            run(objective, views_of(net), TARGET, lambda total, scale=scale: total * scale)
            found.append(gradients(objective))
        for name, gradient in found[0].items():
            torch.testing.assert_close(found[1][name], 8 * gradient, msg=name)


class Checkpointed(nn.Module):
    """A block that is computed again in the backward pass, as timm's models do when asked."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.fc, self.grad_checkpointing = nn.Linear(6, 3), False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.block, x, use_reentrant=False) if self.grad_checkpointing else self.block(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("low_memory", [False, True])
def test_checkpoints_do_not_move_statistics_twice(low_memory: bool) -> None:
    net = make_switchable(Checkpointed(), (24, 16)).double()
    found = []
    for on in (False, True):
        own = copy.deepcopy(net)
        own.set_grad_checkpointing(on)
        objective = Objective(own, FinetuneConfig(grad_checkpointing=on)).train()
        if low_memory:
            backward_by_view(objective, views_of(own), TARGET, lambda total: total)
        else:
            backward(objective, objective, views_of(own), TARGET, lambda total: total)
        found.append((gradients(objective), buffers(own)))
    for name, value in found[0][1].items():
        assert torch.equal(found[1][1][name], value), name
    for name, gradient in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], gradient, msg=name)


def test_kept_buffers_come_back(make_net: MakeNet) -> None:
    net = make_net().train()
    before = buffers(net)
    with kept_buffers(net.at(24)):
        net.at(24)(torch.randn(2, 3, 24, 24))
        assert not torch.equal(net.at(24).bn1.running_mean, before["bn1.at.24.running_mean"])
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())


CPU = torch.device("cpu")


def test_a_state_gives_the_same_numbers_again() -> None:
    with torch.random.fork_rng(devices=[]):
        states = generator_states(CPU)
        first, second = torch.rand(3), torch.rand(3)
        set_generators(states, CPU)
        assert torch.equal(torch.rand(3), first)
        with _restored_generators(states, CPU):
            assert torch.equal(torch.rand(3), first)
        assert torch.equal(torch.rand(3), second), "outside it goes on from where it was"


def test_without_a_state_a_generator_goes_on() -> None:
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        set_generators({}, CPU)
        assert torch.equal(torch.get_rng_state(), before)
