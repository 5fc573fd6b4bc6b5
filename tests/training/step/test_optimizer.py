"""Groups, rates and schedule, against what the update rules and closed forms say."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from rsconvert.errors import ConfigError
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.training.step.objective import Objective
from rsconvert.training.step.optimizer import create_optimizer, create_schedule, learning_parameters, parameter_groups

MATRICES = {"conv1.weight", "conv2.weight", "fc.weight"}


def names(net: SwitchableModel, group: dict[str, Any]) -> set[str]:
    by_id = {id(p): name for name, p in net.named_parameters()}
    return {by_id[id(p)] for p in group["params"]}


def test_only_matrices_decay_and_alpha_has_its_own_rate(net: SwitchableModel) -> None:
    config = FinetuneConfig(weight_decay=0.5, alpha_lr=0.7, lr=0.1)
    groups = create_optimizer(net, config).param_groups
    decayed, spared, alpha = groups
    assert names(net, decayed) == MATRICES
    assert names(net, alpha) == {"rsconvert.alpha"}
    assert names(net, spared) == {name for name, _ in net.named_parameters()} - MATRICES - {"rsconvert.alpha"}
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0, 0.0]
    assert [group["lr"] for group in groups] == [0.1, 0.1, 0.7]


def test_decay_all_decays_all(net: SwitchableModel) -> None:
    groups = parameter_groups(net, FinetuneConfig(weight_decay=0.5, decay_all=True))
    assert [group["weight_decay"] for group in groups] == [0.5] * 3
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


@pytest.mark.parametrize("part", ["bn", "head"])
def test_frozen_parameters_are_in_no_group(net: SwitchableModel, part: Any) -> None:
    config = FinetuneConfig(train=part)
    Objective(net, config)
    held = set.union(*(names(net, group) for group in parameter_groups(net, config)))
    assert held == {name for name, p in net.named_parameters() if p.requires_grad}
    assert "rsconvert.alpha" in held
    assert "conv1.weight" not in held


def nesterov(w: float, gradients: list[float], lr: float, momentum: float) -> float:
    speed = 0.0
    for g in gradients:
        speed = momentum * speed + g
        w -= lr * (g + momentum * speed)
    return w


def heavy_ball(w: float, gradients: list[float], lr: float, momentum: float) -> float:
    speed = 0.0
    for g in gradients:
        speed = momentum * speed + g
        w -= lr * speed
    return w


def adamw(w: float, gradients: list[float], lr: float, momentum: float) -> float:
    first = second = 0.0
    for t, g in enumerate(gradients, 1):
        first, second = momentum * first + (1 - momentum) * g, 0.999 * second + 0.001 * g * g
        w -= lr * (first / (1 - momentum**t)) / (math.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return w


@pytest.mark.parametrize(("name", "rule"), [("sgd", nesterov), ("momentum", heavy_ball), ("adamw", adamw)])
def test_the_update_rule_is_the_named_one(net: SwitchableModel, name: Any, rule: Callable[..., float]) -> None:
    net.double()
    config = FinetuneConfig(optimizer=name, lr=0.1, alpha_lr=0.2, momentum=0.8, weight_decay=0.0)
    optimizer = create_optimizer(net, config)
    gradients = [1.0, -0.5, 0.25]
    bias = net.get_parameter("conv2.bias")[0].item()
    for g in gradients:
        for parameter in net.parameters():
            parameter.grad = torch.full_like(parameter, g)
        optimizer.step()
    assert net.get_parameter("conv2.bias")[0].item() == pytest.approx(rule(bias, gradients, 0.1, 0.8), rel=1e-9)
    assert net.alpha[0].item() == pytest.approx(rule(1.0, gradients, 0.2, 0.8), rel=1e-9)


def test_decay_shrinks_matrices_and_nothing_else(net: SwitchableModel) -> None:
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    config = FinetuneConfig(optimizer="momentum", momentum=0.0, lr=0.1, weight_decay=0.5)
    optimizer = create_optimizer(net, config)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] * (0.95 if name in MATRICES else 1.0))


def scales(groups: list[dict[str, Any]], model: nn.Module) -> dict[str, float]:
    named = {parameter: name for name, parameter in model.named_parameters()}
    return {named[p]: group.get("lr_scale", 1.0) for group in groups for p in group["params"]}


class Deep(nn.Module):
    """Of no family: timm groups its parameters by the dozen, by what a cfg tells of the classifier."""

    pretrained_cfg: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        pairs = [(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(7)]
        self.head, self.body = nn.Linear(3, 2), nn.Sequential(*(layer for pair in pairs for layer in pair))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


def deep_with_cfg() -> nn.Module:
    model = Deep()
    model.pretrained_cfg = {"classifier": "head"}
    return model


@pytest.mark.parametrize(
    "build",
    [*(lambda n=name: timm.create_model(n) for name in ("test_resnet", "test_efficientnet", "test_byobnet")), Deep],
    ids=["resnet", "efficientnet", "byobnet", "other"],
)
@pytest.mark.parametrize("private", [("bn",), ("bn", "head")])
def test_layers_have_timms_scales_in_every_set(build: Callable[[], nn.Module], private: tuple[str, ...]) -> None:
    model = build()
    told = deep_with_cfg() if isinstance(model, Deep) else model
    expected = scales(param_groups_layer_decay(told, layer_decay=0.5), told)
    assert len(set(expected.values())) > 2
    net = make_switchable(model, (64, 48, 32), private=private, large_head="head" in private)
    groups = create_optimizer(net, FinetuneConfig(layer_decay=0.5, lr=0.1, alpha_lr=0.7)).param_groups
    found = scales(groups, net)
    assert found.keys() == dict(net.named_parameters()).keys()
    assert {name: found[name] for name in expected} == expected
    owners = {name: re.sub(r"\.at\.\d+\.", ".", name) for name in found if ".at." in name}
    assert len(owners) > 10
    assert all(found[name] == expected[owner] for name, owner in owners.items())
    assert found["rsconvert.alpha"] == groups[0]["lr_scale"] == 1.0
    assert [p.ndim > 1 for p in groups[0]["params"]] == [True] * len(groups[0]["params"])


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_steps_divide_the_rate_by_ten_at_their_epochs(net: SwitchableModel, warmup: float) -> None:
    config = FinetuneConfig(lr=1.0, epochs=5, warmup_epochs=warmup, schedule="step", lr_steps=(2, 3))
    optimizer = create_optimizer(net, config)
    schedule = create_schedule(optimizer, config, steps_per_epoch=4)
    rates = []
    for step in range(20):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    first = [0.0, 0.5] if warmup else [1.0, 1.0]
    assert rates == pytest.approx([*first, *[1.0] * 6, *[0.1] * 4, *[0.01] * 8])


def test_the_schedule_scales_each_layer_from_the_first_step(net: SwitchableModel) -> None:
    config = FinetuneConfig(epochs=2, lr=0.2, alpha_lr=0.6, layer_decay=0.5, warmup_epochs=1.0)
    optimizer = create_optimizer(net, config)
    schedule = create_schedule(optimizer, config, steps_per_epoch=4)
    assert [group.get("lr_scale", 1.0) for group in optimizer.param_groups] == [1.0, 1.0, 0.5, 0.5, 1.0]
    peaks = np.array([0.2, 0.2, 0.1, 0.1, 0.6])
    for step, share in enumerate(closed_form("cosine", 8, 4)):
        schedule.step_update(step)
        np.testing.assert_allclose([group["lr"] for group in optimizer.param_groups], peaks * share, atol=1e-12)


def test_layer_decay_of_one_layer_is_refused() -> None:
    net = make_switchable(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), (16, 8))
    with pytest.raises(ConfigError, match="layer_decay has no effect"):
        create_optimizer(net, FinetuneConfig(layer_decay=0.5))


def test_the_rate_follows_from_the_images_of_all_processes(net: SwitchableModel) -> None:
    config = FinetuneConfig(batch_size=64, grad_accum_steps=2)
    assert create_optimizer(net, config, processes=3).param_groups[0]["lr"] == pytest.approx(0.005 * 12 / 3)
    assert create_optimizer(net, config).param_groups[0]["lr"] == pytest.approx(0.005 * 4 / 3)


def trained(net: SwitchableModel, config: FinetuneConfig, *, fused: bool) -> list[torch.Tensor]:
    """The parameters after four steps on views of noise."""
    net = net.double().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = create_optimizer(net, config)
    assert all(group["fused"] for group in optimizer.param_groups)
    for step in range(4):
        for group in optimizer.param_groups:
            group["fused"] = fused
        generator = torch.Generator().manual_seed(step)
        views = [torch.randn(4, 3, r, r, generator=generator, dtype=torch.float64) for r in net.resolutions]
        optimizer.zero_grad()
        sum(z.square().mean() for z in net(views=views)).backward()
        optimizer.step()
    return [parameter.detach() for parameter in net.parameters()]


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw"])
def test_a_fused_step_is_the_plain_one(make_net: Callable[..., SwitchableModel], name: Any) -> None:
    config = FinetuneConfig(optimizer=name, lr=0.1)
    plain = trained(make_net(), config, fused=False)
    assert not plain[0].is_contiguous(), "the layout in which a wrong stride would show"
    torch.testing.assert_close(trained(make_net(), config, fused=True), plain, rtol=0, atol=1e-6)


def rates(net: SwitchableModel, config: FinetuneConfig, steps_per_epoch: int) -> np.ndarray:
    """The rates of (weights, alpha) at each step, in the order of the loop."""
    optimizer = create_optimizer(net, config)
    schedule = create_schedule(optimizer, config, steps_per_epoch)
    found = []
    for step in range(config.epochs * steps_per_epoch):
        schedule.step_update(step)
        found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[-1]["lr"]))
    return np.array(found)


def closed_form(kind: str, steps: int, warmup: int) -> np.ndarray:
    t = np.arange(steps)
    u = (t - warmup) / (steps - warmup)
    after = {"cosine": (1 + np.cos(np.pi * u)) / 2, "poly": 1 - u, "constant": np.ones(steps)}[kind]
    return np.where(t < warmup, t / max(1, warmup), after)


@pytest.mark.parametrize("kind", ["cosine", "poly", "constant"])
@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 1.25])
def test_the_rate_of_each_step(net: SwitchableModel, kind: Any, warmup_epochs: float) -> None:
    config = FinetuneConfig(epochs=4, lr=0.2, alpha_lr=0.6, schedule=kind, warmup_epochs=warmup_epochs)
    found = rates(net, config, steps_per_epoch=8)
    warmup = int(warmup_epochs * 8)
    shape = closed_form(kind, 32, warmup)
    np.testing.assert_allclose(found[:, 0], 0.2 * shape, atol=1e-12)
    np.testing.assert_allclose(found[:, 1], 0.6 * shape, atol=1e-12)
    assert found[warmup, 0] == pytest.approx(0.2), "the peak comes at the end of the warm-up"
    assert found[0, 0] == (0.0 if warmup else pytest.approx(0.2))
    assert kind == "constant" or found[-1, 0] < 0.01


def test_the_warm_up_never_takes_every_step(net: SwitchableModel) -> None:
    config = FinetuneConfig(epochs=1, lr=0.2, warmup_epochs=0.9)
    assert rates(net, config, steps_per_epoch=1)[0, 0] == pytest.approx(0.2)


MakeNet = Callable[..., SwitchableModel]


def learning_names(net: SwitchableModel, part: str, alpha: bool = True) -> set[str]:
    learning = learning_parameters(net, part, alpha=alpha)
    return {name for name, parameter in net.named_parameters() if parameter in learning}


def test_each_part_is_what_it_says(net: SwitchableModel) -> None:
    every = {name for name, _ in net.named_parameters()}
    assert learning_names(net, "all") == every
    assert learning_names(net, "bn") == {name for name in every if ".at." in name} | {"rsconvert.alpha"}
    assert learning_names(net, "head") == {"fc.weight", "fc.bias", "rsconvert.alpha"}
    for part in ("all", "bn", "head"):
        assert learning_names(net, part, alpha=False) == learning_names(net, part) - {"rsconvert.alpha"}


def test_private_classifiers_learn_as_the_head_and_not_with_the_sets(make_net: MakeNet) -> None:
    net = make_net(private=("bn", "head"))
    every = {name for name, _ in net.named_parameters()}
    heads = {name for name in every if name.startswith("fc.")}
    assert len(heads) == 6
    assert learning_names(net, "all") == every
    assert learning_names(net, "head") == heads | {"rsconvert.alpha"}
    assert learning_names(net, "bn") == {n for n in every - heads if ".at." in n} | {"rsconvert.alpha"}
    groups = create_optimizer(net, FinetuneConfig(weight_decay=0.5)).param_groups
    assert {name for name in heads if "weight" in name} <= names(net, groups[0])


def test_something_must_learn() -> None:
    body = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    net = make_switchable(nn.Sequential(*body), (24, 16))
    assert len(learning_parameters(net, "bn")) == 1
    with pytest.raises(ConfigError, match="train is bn and alpha is frozen, but the network has no such parameters"):
        learning_parameters(net, "bn", alpha=False)


def test_smaller_sets_need_a_trained_classifier_and_sets_of_their_own(make_net: MakeNet) -> None:
    net = make_net()
    net.source = replace(net.source, new_classifier=("fc.weight",))
    with pytest.raises(ConfigError, match="train is bn, but the classifier is new"):
        learning_parameters(net, "bn")
    for one in (make_net((32,)), make_net(private=False)):
        with pytest.raises(ConfigError, match="train is bn, but the native BN set is the network"):
            learning_parameters(one, "bn")
