"""Objective: what it freezes, which modes it sets, what it passes to the loss, what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsconvert.errors import ConfigError, DataError, TrainingError
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.training.loss import mred_loss
from rsconvert.training.step.objective import Objective


def views_of(net: SwitchableModel, count: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, 3, r, r, generator=generator) for r in net.resolutions]


TARGET = torch.tensor([0, 2, 1, 2])


def learning(net: SwitchableModel) -> set[str]:
    return {name for name, p in net.named_parameters() if p.requires_grad}


def test_each_part_frees_its_parameters_and_freezes_the_rest(net: SwitchableModel) -> None:
    everything = {name for name, _ in net.named_parameters()}
    smaller = {name for name in everything if ".at." in name}
    assert len(smaller) == 2 * 2 * 2  # BatchNorms, sets, γ and β
    for part, wanted in (
        ("bn", smaller | {"rsconvert.alpha"}),
        ("head", {"fc.weight", "fc.bias", "rsconvert.alpha"}),
        ("all", everything),
    ):
        Objective(net, FinetuneConfig(train=part))  # type: ignore[arg-type]
        assert learning(net) == wanted


def test_a_frozen_set_stays_in_eval_mode(net: SwitchableModel) -> None:
    for part, wanted in (("all", [True] * 3), ("bn", [False, True, True]), ("head", [False] * 3)):
        Objective(net, FinetuneConfig(train=part)).train()  # type: ignore[arg-type]
        assert [net.at(r).bn1.training for r in net.resolutions] == wanted
    Objective(net, FinetuneConfig()).eval()
    assert not any(m.training for r in net.resolutions for m in net.at(r).modules())


def test_the_settings_of_the_loss_arrive(net: SwitchableModel) -> None:
    net.alpha.data = torch.tensor([0.5, -1.0, 2.0])
    weights = (0.2, 1.0, 3.0)
    config = FinetuneConfig(distill="vanilla", label_smoothing=0.1, class_weights=weights)
    views = views_of(net)
    found = Objective(net, config).eval()(views, TARGET)

    logits = [net.at(r)(view).detach() for r, view in zip(net.resolutions, views, strict=True)]
    mixed = sum(score * z for score, z in zip(net.alpha.softmax(0), logits, strict=True))

    def ce(z: Tensor) -> Tensor:
        return F.cross_entropy(z, TARGET, weight=torch.tensor(weights), label_smoothing=0.1)

    teacher = mixed.log_softmax(1)
    distance = sum(F.kl_div(z.log_softmax(1), teacher, reduction="batchmean", log_target=True) for z in logits)
    torch.testing.assert_close(found.classification, sum(ce(z) for z in logits))
    torch.testing.assert_close(found.ensemble, ce(mixed))
    torch.testing.assert_close(found.distillation, distance)


def without(views: list[Tensor], *places: int) -> list[Tensor]:
    """The views of a batch that did not draw some places."""
    return [view[..., :0, :0] if place in places else view for place, view in enumerate(views)]


def test_drawn_views_have_the_loss_of_a_network_of_their_number(make_net: Callable[..., SwitchableModel]) -> None:
    net = make_net((32, 28, 24, 20, 16)).double()
    net.alpha.data = torch.tensor([0.5, -1.0, 2.0, 1.0, 0.3], dtype=torch.float64)
    views = [view.double() for view in views_of(net)]
    found = Objective(net, FinetuneConfig(views="sandwich")).eval()(without(views, 1, 3), TARGET)

    logs = [net.at(r)(view).detach() for r, view in zip(net.resolutions, views, strict=True)]
    chosen = [logs[place] for place in (0, 2, 4)]
    scores = np.exp([0.5, 2.0, 0.3]) / np.exp([0.5, 2.0, 0.3]).sum()
    mixed = sum(score * z for score, z in zip(scores, chosen, strict=True))
    p = [z.softmax(1).numpy() for z in (mixed, *chosen)]
    pairs = [(p[t] * np.log(p[t] / p[s])).sum(1).mean() for s in range(4) for t in range(s)]
    hits = [-np.log(q[np.arange(4), TARGET.numpy()]).mean() for q in p]
    np.testing.assert_allclose(found.classification.item(), sum(hits[1:]))
    np.testing.assert_allclose(found.ensemble.item(), hits[0])
    np.testing.assert_allclose(found.distillation.item(), 2 / (3 + 1) * sum(pairs))


@pytest.mark.parametrize("labels", ["data", "none"])
def test_what_is_not_drawn_gets_no_gradient_and_keeps_its_statistics(
    make_net: Callable[..., SwitchableModel], labels: Any
) -> None:
    net = make_net((32, 28, 24, 20, 16))
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    teacher = net.extract(32) if labels == "none" else None
    objective = Objective(net, FinetuneConfig(views=4, labels=labels), teacher=teacher).train()
    objective(without(views_of(net), 2), TARGET).total.backward()
    assert {name for name, p in net.named_parameters() if p.requires_grad and p.grad is None} == {
        f"bn{i}.at.24.{part}" for i in (1, 2) for part in ("weight", "bias")
    }
    kept = {name for name, buffer in net.named_buffers() if torch.equal(buffer, before[name])}
    assert kept == {name for name in before if ".at.24." in name}
    if labels == "data":
        assert net.alpha.grad is not None
        assert net.alpha.grad.ne(0).tolist() == [True, True, False, True, True]


def test_one_resolution_has_no_one_to_teach(make_net: Callable[..., SwitchableModel]) -> None:
    net = make_net((32,))
    loss = Objective(net, FinetuneConfig())(views_of(net), TARGET)
    loss.total.backward()
    assert loss.distillation == 0
    assert loss.classification == loss.ensemble
    assert net.alpha.grad is not None
    assert not net.alpha.grad.any()


def test_mixed_precision_computes_logits_in_it_and_the_loss_in_float32(net: SwitchableModel) -> None:
    seen: list[torch.dtype] = []
    net.fc.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    loss = Objective(net, FinetuneConfig(), torch.bfloat16)(views_of(net), TARGET)
    assert seen == [torch.bfloat16] * 3
    assert loss.total.dtype == torch.float32


@pytest.mark.parametrize("part", ["all", "head"])
def test_a_shared_bn_may_learn(make_net: Callable[..., SwitchableModel], part: Any) -> None:
    Objective(make_net(private=False), FinetuneConfig(train=part))


@pytest.mark.parametrize("options", [{"private": False}, {"resolutions": (32,)}])
def test_bn_is_refused_without_a_second_set(make_net: Callable[..., SwitchableModel], options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="the native BN set is the network's only one"):
        Objective(make_net(**options), FinetuneConfig(train="bn"))


def test_bn_is_refused_with_a_new_classifier(net: SwitchableModel) -> None:
    net.source = replace(net.source, new_classifier=("fc.weight",))
    with pytest.raises(ConfigError, match="the classifier is new"):
        Objective(net, FinetuneConfig(train="bn"))
    Objective(net, FinetuneConfig(train="head"))


def test_head_is_refused_without_a_classifier() -> None:
    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.bn(x).mean((2, 3))

    with pytest.raises(ConfigError, match="no classifier"):
        Objective(make_switchable(Norm(), (16, 8)), FinetuneConfig(train="head"))


def test_class_weights_need_one_number_per_class(net: SwitchableModel) -> None:
    net.source = replace(net.source, num_classes=3)
    with pytest.raises(DataError, match="class_weights has 2 numbers; 3 are needed"):
        Objective(net, FinetuneConfig(class_weights=(1.0, 2.0)))


def test_only_the_outputs_of_the_data_are_compared(make_net: Callable[..., SwitchableModel]) -> None:
    net = make_net(classes=5)
    config, views = FinetuneConfig(class_weights=(9.0, 1.0, 2.0, 9.0, 3.0)), views_of(net)
    found = Objective(net, config, outputs=(4, 1, 2)).eval()(views, TARGET)
    chosen = [net.at(r)(view)[:, [4, 1, 2]] for r, view in zip(net.resolutions, views, strict=True)]
    wanted = mred_loss(chosen, TARGET, net.alpha, class_weights=torch.tensor([3.0, 1.0, 2.0]))
    torch.testing.assert_close(found.total, wanted.total)
    found.total.backward()
    moved = net.get_parameter("fc.bias").grad
    assert moved is not None
    assert moved.ne(0).tolist() == [False, True, True, False, True]


def test_a_teacher_is_asked_for_the_outputs_of_the_data(make_net: Callable[..., SwitchableModel]) -> None:
    net, taught = make_net(classes=5), torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    views = views_of(net)
    found = Objective(net, FinetuneConfig(teacher="other"), teacher=lambda _: taught, outputs=(4, 1, 2)).eval()
    chosen = [net.at(r)(view)[:, [4, 1, 2]] for r, view in zip(net.resolutions, views, strict=True)]
    wanted = mred_loss(chosen, TARGET, net.alpha, teacher=taught[:, [4, 1, 2]])
    torch.testing.assert_close(found(views, TARGET).total, wanted.total)


def test_a_target_beyond_the_outputs_is_refused(net: SwitchableModel) -> None:
    with pytest.raises(DataError, match=r"a target is 3; the network has 3 outputs, so 0 to 2 is accepted"):
        Objective(net, FinetuneConfig())(views_of(net), torch.tensor([0, 3, 1, 2]))


def test_auxiliary_outputs_are_refused() -> None:
    class Aux(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.fc = nn.BatchNorm2d(3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Any:
            out = self.fc(self.bn(x).mean((2, 3)))
            return (out, out) if self.training else out

    net = make_switchable(Aux(), (16, 8))
    with pytest.raises(TrainingError, match="returns a tuple in train mode"):
        Objective(net, FinetuneConfig()).train()(views_of(net), TARGET)


def test_the_native_path_stays_to_the_bit_whatever_buffers_the_paths_share() -> None:
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))
    body = conv, nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    net = make_switchable(nn.Sequential(*body).eval(), (24, 16))
    image = torch.randn(2, 3, 24, 24)
    wanted = net.eval()(image)
    objective = Objective(net, FinetuneConfig(train="bn")).train()
    objective(views_of(net), TARGET).total.backward()
    assert objective.moved_statistics()
    assert all(any(moved is b for b in net.at(16).buffers()) for moved in objective.moved_statistics())
    assert torch.equal(net.eval()(image), wanted)


def test_what_else_fails_is_not_laid_on_batchnorm(net: SwitchableModel) -> None:
    views = [torch.randn(4, 3, side, side) for side in (32, 24, 2)]
    with pytest.raises(TrainingError, match=r"resolution 16 does not train .*a size that every layer takes is needed"):
        Objective(net, FinetuneConfig()).train()(views, TARGET)
