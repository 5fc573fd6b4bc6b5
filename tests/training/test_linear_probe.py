"""Linear probe: features against the network by hand, the fit against NumPy, what is left alone, what is refused."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from rsconvert.data import Samples, normalize, open_split
from rsconvert.errors import DataError, TrainingError, UnsupportedModelError
from rsconvert.evaluation import validation_loader
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.training.linear_probe import Features, extract_features, fit_classifier, fit_classifier_first

MakeNet = Callable[..., SwitchableModel]


@pytest.fixture
def samples(photos: str) -> Samples:
    return open_split(photos, "train")


def probe(net: SwitchableModel, samples: Samples, *resolutions: int, **options: Any) -> Features:
    return extract_features(net, samples, resolutions or None, workers=0, device="cpu", **options)


def views_of(net: SwitchableModel, samples: Samples, resolution: int) -> Tensor:
    """All images as a path sees them."""
    ((views, _),) = validation_loader(net, samples, (resolution,), batch_size=len(samples), workers=0)
    return normalize(views[0], net.source.preprocessing)


def state(net: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in net.state_dict().items()}


def by_numpy(
    start: nn.Linear, views: list[np.ndarray], targets: np.ndarray, shares: list[float], order: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Momentum 0.9, decay 0.01 of the matrix alone, half a cosine from 0.5, in float64."""
    weight, bias = (tensor.detach().double().numpy() for tensor in (start.weight, start.bias))
    speeds = [np.zeros_like(weight), np.zeros_like(bias)]
    for step, places in enumerate(order):
        gradients = [0.01 * weight, np.zeros_like(bias)]
        for share, inputs in zip(shares, views, strict=True):
            logits = inputs[places] @ weight.T + bias
            errors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[targets[places]]
            gradients[0] = gradients[0] + share * errors.T @ inputs[places] / len(places)
            gradients[1] = gradients[1] + share * errors.mean(0)
        rate = 0.25 * (1 + math.cos(math.pi * step / len(order)))
        speeds = [0.9 * speed + gradient for speed, gradient in zip(speeds, gradients, strict=True)]
        weight, bias = weight - rate * speeds[0], bias - rate * speeds[1]
    return weight, bias


# Features


def test_features_are_what_the_classifier_receives(net: SwitchableModel, samples: Samples) -> None:
    net.train()
    modes = [module.training for module in net.modules()]
    before = state(net)
    found = probe(net, samples, batch_size=7)
    assert (found.classifier, list(found.inputs)) == ("fc", [32, 24, 16])
    assert state(net) == before
    assert [module.training for module in net.modules()] == modes
    assert not net.at(32).fc._forward_hooks
    assert found.targets.tolist() == sorted(found.targets.tolist()) == [0] * 8 + [1] * 8 + [2] * 8
    net.eval()
    for resolution, inputs in found.inputs.items():
        path = net.at(resolution)
        assert inputs.shape == (24, 6)
        logits = path(views_of(net, samples, resolution))
        torch.testing.assert_close(path.fc(inputs), logits, rtol=1e-5, atol=1e-6)


def test_each_image_is_read_once_for_all_resolutions(net: SwitchableModel, samples: Samples) -> None:
    reads: list[int] = []

    class Counted(Samples):
        def open(self, index: int) -> Any:
            reads.append(index)
            return samples.open(index)

    probe(net, Counted(samples, "photos", samples.classes))  # type: ignore[arg-type]
    assert sorted(reads) == list(range(24))


def test_targets_are_the_outputs_of_a_class_map(make_net: MakeNet, samples: Samples) -> None:
    found = probe(make_net(classes=9), samples, 16, outputs=(7, 0, 4))
    assert found.targets.unique_consecutive().tolist() == [7, 0, 4]


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "tf_efficientnet_lite0", "regnetx_002"])
def test_models_of_timm_have_one_classifier(name: str, samples: Samples) -> None:
    net = make_switchable(timm.create_model(name, num_classes=3).eval(), (64, 32))
    few = samples.subset([0, 8, 16])
    inputs = probe(net, few, 32).inputs[32]
    path = net.at(32)
    torch.testing.assert_close(path.get_classifier()(inputs), path(views_of(net, few, 32)), rtol=1e-4, atol=1e-5)


class Convolved(nn.Module):
    """A classifier that is a 1×1 convolution of pooled features, or comes before something else."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.head, self.last = nn.Conv2d(4, 3, 1), last

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.bn(self.stem(x)).relu().mean((2, 3), keepdim=True)
        return self.last(self.head(pooled)).flatten(1)


def test_a_classifier_may_be_a_1x1_convolution(samples: Samples) -> None:
    net = make_switchable(Convolved(nn.Identity()), (32, 16))
    found = probe(net, samples)
    assert (found.classifier, found.inputs[16].shape) == ("head", (24, 4))
    fit_classifier(net, found, epochs=30, lr=0.5)
    right = net.at(16).eval()(views_of(net, samples, 16)).argmax(1) == found.targets
    assert right.float().mean() > 0.9


def test_a_classifier_that_is_not_the_last_layer_is_refused(samples: Samples) -> None:
    net = make_switchable(Convolved(nn.Sigmoid()), (32, 16))
    with pytest.raises(UnsupportedModelError, match="the logits of Convolved are not the outputs of one layer"):
        probe(net, samples)


@pytest.mark.parametrize(("count", "told"), [(0, "the data holds no images"), (24, "3 classes, the classifier 5")])
def test_data_that_does_not_fit_is_refused(make_net: MakeNet, samples: Samples, count: int, told: str) -> None:
    net = make_net(classes=3 if count == 0 else 5)
    net.source.__dict__["num_classes"] = 3 if count == 0 else 5
    with pytest.raises(DataError, match=told):
        probe(net, samples.subset(range(count)))


# The fit


def test_the_fit_is_that_of_numpy(net: SwitchableModel, samples: Samples) -> None:
    found, before = probe(net, samples), state(net)
    generator = torch.Generator().manual_seed(3)
    order = [part.numpy() for _ in range(4) for part in torch.randperm(24, generator=generator).split(10)]
    views = [inputs.double().numpy() for inputs in found.inputs.values()]
    weight, bias = by_numpy(net.at(32).fc, views, found.targets.numpy(), [0.5, 0.25, 0.25], order)
    options: dict[str, Any] = {"epochs": 4, "lr": 0.5, "batch_size": 10, "weight_decay": 0.01, "seed": 3}
    fit_classifier(net, found, view_weights=(2, 1, 1), **options)
    np.testing.assert_allclose(net.at(16).fc.weight.detach().numpy(), weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.at(24).fc.bias.detach().numpy(), bias, rtol=1e-4, atol=1e-5)
    assert {name for name, held in state(net).items() if held != before[name]} == {"fc.weight", "fc.bias"}
    assert all(parameter.grad is None for parameter in net.parameters())


def test_private_classifiers_are_fitted_to_the_features_of_their_own_path(make_net: MakeNet, samples: Samples) -> None:
    net = make_net(private=("bn", "head"))
    found, before = probe(net, samples, 24, 16), state(net)
    generator = torch.Generator().manual_seed(0)
    order = [part.numpy() for _ in range(2) for part in torch.randperm(24, generator=generator).split(10)]
    wanted = {
        r: by_numpy(net.at(r).fc, [found.inputs[r].double().numpy()], found.targets.numpy(), [1.0], order)
        for r in (24, 16)
    }
    fit_classifier(net, found, epochs=2, lr=0.5, batch_size=10, weight_decay=0.01)
    for r, (weight, bias) in wanted.items():
        np.testing.assert_allclose(net.at(r).fc.weight.detach().numpy(), weight, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(net.at(r).fc.bias.detach().numpy(), bias, rtol=1e-4, atol=1e-5)
    fitted = {f"fc.at.{r}.{name}" for r in (24, 16) for name in ("weight", "bias")}
    assert {name for name, held in state(net).items() if held != before[name]} == fitted


def test_one_path_alone_fits_the_classifier(net: SwitchableModel, samples: Samples) -> None:
    found = probe(net, samples, 16)
    fit_classifier(net, found, epochs=30, lr=0.5)
    right = net.at(16).eval()(views_of(net, samples, 16)).argmax(1) == found.targets
    assert right.float().mean() > 0.9


def test_the_seed_decides_the_order(make_net: MakeNet, samples: Samples) -> None:
    nets = [make_net() for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        fit_classifier(net, probe(net, samples, 16), epochs=1, batch_size=7, seed=seed)
    first, same, other = (net.at(16).fc.weight for net in nets)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_frozen_classifier_is_fitted_and_stays_frozen(net: SwitchableModel, samples: Samples) -> None:
    net.requires_grad_(False)
    before = net.at(16).fc.weight.clone()
    with torch.no_grad():
        fit_classifier(net, probe(net, samples, 16))
    assert not torch.equal(net.at(16).fc.weight, before)
    assert not net.at(16).fc.weight.requires_grad


def test_a_fit_that_fails_leaves_the_classifier(net: SwitchableModel, samples: Samples) -> None:
    found, before = probe(net, samples), state(net)
    with pytest.raises(TrainingError, match="not finite after its fit at the rate 1e\\+30"):
        fit_classifier(net, found, lr=1e30)
    with pytest.raises(DataError, match="a target is 3"):
        fit_classifier(net, Features("fc", found.inputs, found.targets + 1))
    assert state(net) == before


# Before all learns


def test_the_classifier_is_fitted_first_to_the_features_of_all_resolutions(make_net: MakeNet, samples: Samples) -> None:
    net, by_hand = make_net(), make_net()
    net.source = replace(net.source, new_classifier=("fc.weight", "fc.bias"))
    before = state(net)
    fit_classifier_first(net, samples, 2, seed=3, workers=0, device="cpu")
    fit_classifier(by_hand, probe(by_hand, samples), epochs=2, seed=3)
    assert state(net) == state(by_hand)
    assert {name for name, content in state(net).items() if content != before[name]} == {"fc.weight", "fc.bias"}
    assert net.source.new_classifier == ()


def test_of_many_images_a_part_is_enough(
    net: SwitchableModel, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr("rsconvert.training.linear_probe._ENOUGH", 5)
    monkeypatch.setattr(samples, "subset", lambda some: seen.extend(some) or Samples.subset(samples, some))
    fit_classifier_first(net, samples, 1, workers=0, device="cpu")
    assert len(set(seen)) == len(seen) == 5
