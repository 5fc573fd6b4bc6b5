"""Stepper: what a step amounts to: accumulation, precision, average, compilation; what it says of a broken loss."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rsconvert.errors import ConfigError
from rsconvert.evaluation import Processes
from rsconvert.models import create_model
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.training.step.stepper import Stepper

MakeNet = Callable[..., SwitchableModel]
ALONE = Processes(0, 1, torch.device("cpu"))
SGD = {"optimizer": "momentum", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "warmup_epochs": 0.0}


def batch(net: SwitchableModel, count: int = 8) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    dtype = net.alpha.dtype
    views = [torch.randn(count, 3, r, r, generator=generator, dtype=dtype) for r in net.resolutions]
    return views, torch.randint(3, (count,), generator=generator)


def stepper_of(net: SwitchableModel, amp: torch.dtype = torch.float32, **settings: Any) -> Stepper:
    return Stepper(net, FinetuneConfig(**{**SGD, "lr": 0.1, **settings}), 10, amp, ALONE)


def test_accumulated_parts_make_the_step_of_the_whole(make_net: MakeNet) -> None:
    views, target = batch(make_net().double())
    nets = []
    for parts in (1, 2, 4):
        net = make_net().double()
        stepper = stepper_of(net, grad_accum_steps=parts)
        stepper.objective.eval()  # else the statistics of each part enter
        for number, share in enumerate(torch.arange(8).chunk(parts), start=1):
            stepper.add([v[share] for v in views], target[share], last=number == parts)
        stepper.step(0)
        nets.append(net)
    for name, wanted in nets[0].named_parameters():
        for net in nets[1:]:
            torch.testing.assert_close(net.get_parameter(name), wanted, msg=name)
    assert stepper_of(make_net(), grad_accum_steps=3).steps_per_epoch == 3


def test_the_average_follows_by_timms_rule(make_net: MakeNet) -> None:
    net = make_net()
    stepper = stepper_of(net, ema_decay=0.9)
    average = {name: value.clone() for name, value in net.state_dict().items() if value.is_floating_point()}
    for step in range(4):
        stepper.add(*batch(net), last=True)
        stepper.step(step)
        # A warm-up: the first step copies, then 1 - (1 + n)^(-2/3) after n more.
        decay = min(0.9, 1 - (1 + step) ** (-2 / 3)) if step else 0.0
        for name, value in average.items():
            value.lerp_(net.state_dict()[name], 1 - decay)
    assert stepper.judged is stepper.averaged is not net
    for name, value in average.items():
        torch.testing.assert_close(stepper.judged.state_dict()[name], value, msg=name)
    assert stepper_of(make_net()).judged is not None
    assert stepper_of(make_net()).averaged is None


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
@pytest.mark.parametrize("low_memory", [False, True])
def test_a_step_leaves_the_sets_that_are_not_drawn_to_the_bit(
    make_net: MakeNet, optimizer: str, low_memory: bool
) -> None:
    net = make_net((32, 28, 24, 16))
    settings = {"optimizer": optimizer, "momentum": 0.9, "weight_decay": 0.1, "decay_all": True}
    stepper = stepper_of(net, views="sandwich", low_memory=low_memory, **settings)
    stepper.objective.train()
    views, target = batch(net)
    for step, left_out in enumerate((1, 2, 1)):
        before = copy.deepcopy(net.state_dict())
        stepper.add([v[..., :0, :0] if place == left_out else v for place, v in enumerate(views)], target, last=True)
        stepper.step(step)
        kept = {name for name, value in net.state_dict().items() if torch.equal(value, before[name])}
        assert kept == {name for name in before if f".at.{net.resolutions[left_out]}." in name}


def test_a_momentum_begins_when_its_set_is_first_drawn(make_net: MakeNet) -> None:
    net = make_net((32, 28, 24, 16)).double()
    stepper = stepper_of(net, optimizer="momentum", momentum=0.5, views=3, lr=0.1)
    views, target = batch(net)
    name = "bn2.at.28.weight"
    parameter, speed = net.get_parameter(name), torch.zeros(6, dtype=torch.float64)
    for step, left_out in enumerate((1, 2, 2)):
        before = parameter.detach().clone()
        stepper.add([v[..., :0, :0] if place == left_out else v for place, v in enumerate(views)], target, last=True)
        if left_out != 1:
            speed = 0.5 * speed + parameter.grad
        stepper.step(step)
        torch.testing.assert_close(parameter.detach(), before - (0.1 * speed if left_out != 1 else 0))


@pytest.mark.parametrize("decay", [None, 0.9])
def test_the_mixture_is_of_the_start_and_what_training_made(make_net: MakeNet, decay: float | None) -> None:
    net = make_net()
    start = net.get_parameter("conv1.weight").detach().clone()
    stepper = stepper_of(net, ema_decay=decay, start_share=0.25)
    for step in range(3):
        stepper.add(*batch(net), last=True)
        stepper.step(step)
    stepper.mix()
    made = (stepper.averaged or net).get_parameter("conv1.weight")
    assert not torch.equal(made, start)
    torch.testing.assert_close(stepper.judged.get_parameter("conv1.weight"), 0.25 * start + 0.75 * made)
    assert stepper.judged is not net


@pytest.mark.parametrize("low_memory", [False, True])
def test_bfloat16_steps_stay_near_float32(make_net: MakeNet, low_memory: bool) -> None:
    nets = []
    for amp in (torch.float32, torch.bfloat16):
        net = make_net()
        stepper = stepper_of(net, amp, low_memory=low_memory)
        stepper.add(*batch(net), last=True)
        stepper.step(0)
        nets.append(net)
    for name, wanted in nets[0].named_parameters():
        torch.testing.assert_close(nets[1].get_parameter(name), wanted, rtol=0.05, atol=0.02, msg=name)
        assert nets[1].get_parameter(name).dtype is torch.float32
    assert any(not torch.equal(nets[1].get_parameter(name), wanted) for name, wanted in nets[0].named_parameters())


def test_compiled_paths_compute_the_same_gradients_on_the_networks_own_tensors(
    make_net: MakeNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[dict[str, Any]] = []
    real = torch.compile

    def spy(path: Any, **options: Any) -> Any:
        compiled.append(options)
        return real(path, dynamic=options["dynamic"], backend="aot_eager")  # needs no compiler

    monkeypatch.setattr(torch, "compile", spy)
    nets = []
    for mode in ("off", "default"):
        net = make_net().double()
        stepper = stepper_of(net, compile=mode)
        stepper.objective.train()
        stepper.add(*batch(net), last=True)
        stepper.step(0)
        nets.append(net)
    assert compiled == [{"dynamic": False, "mode": "default"}] * 3
    for name, wanted in nets[0].state_dict().items():
        torch.testing.assert_close(nets[1].state_dict()[name], wanted, msg=name)


@pytest.mark.parametrize(("name", "resolution"), [("bn1.at.16.weight", 16), ("bn2.weight", 32), ("fc.weight", 32)])
def test_the_first_view_that_is_not_finite_is_told(make_net: MakeNet, name: str, resolution: int) -> None:
    net = make_net()
    stepper = stepper_of(net)
    net.get_parameter(name).data[0] = torch.nan
    before = copy.deepcopy(net.state_dict())
    parts, found = stepper.diagnose(*batch(net))
    assert (parts, found) == (["classification", "ensemble", "distillation"], resolution)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items() if "running" in k)


def test_a_broken_view_is_told_by_its_resolution_where_others_are_not_drawn(make_net: MakeNet) -> None:
    net = make_net()
    net.get_parameter("bn1.at.16.weight").data[0] = torch.nan
    (native, middle, smallest), target = batch(net)
    assert stepper_of(net).diagnose([native, middle[..., :0, :0], smallest], target)[1] == 16


def test_alpha_alone_breaks_the_ensemble(make_net: MakeNet) -> None:
    net = make_net()
    net.alpha.data[1] = torch.inf
    parts, resolution = stepper_of(net, distill="none").diagnose(*batch(net))
    assert (parts, resolution) == (["ensemble"], None)


def test_checkpointing_is_the_models_own() -> None:
    net = make_switchable(create_model("test_resnet", num_classes=3), (48, 32))
    stepper_of(net, grad_checkpointing=True)
    assert all(net.at(r).grad_checkpointing for r in (48, 32))  # type: ignore[union-attr]


def test_a_model_without_checkpointing_is_refused(make_net: MakeNet) -> None:
    with pytest.raises(ConfigError, match="grad_checkpointing is on, but Tinier has none"):
        stepper_of(make_net(), grad_checkpointing=True)


def test_more_accumulation_than_batches_is_refused(make_net: MakeNet) -> None:
    with pytest.raises(ConfigError, match="grad_accum_steps is 11, more than the 10 batches of an epoch"):
        stepper_of(make_net(), grad_accum_steps=11)
