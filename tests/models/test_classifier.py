"""The classifier: found where the logits come from, whatever the order of registration."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from rsconvert.models.classifier import classifier_keys, classifier_layers, count_outputs, zero_parameters


class Odd(nn.Module):
    """Registers its classifier before its convolutions, and an auxiliary head that runs in train mode alone."""

    def __init__(self, classes: int = 3, smallest: int = 1) -> None:
        super().__init__()
        self.fc = nn.Linear(8, classes)
        self.bn = nn.BatchNorm2d(8)
        self.auxiliary = nn.Sequential(nn.Conv2d(8, classes, 1), nn.Linear(8, 16), nn.Linear(16, classes))
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.smallest = smallest
        self.modes: list[bool] = []

    def forward(self, x):
        if x.shape[-1] < self.smallest:
            raise ValueError("too small")
        self.modes.append(self.training)
        return self.fc(self.bn(self.conv(x)).mean((2, 3)))


class Pair(Odd):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("model", "keys", "outputs"),
    [
        (lambda: timm.create_model("resnet10t"), ["fc.weight", "fc.bias"], 1000),
        (
            lambda: timm.create_model("mobilenetv3_small_050", num_classes=9),
            ["classifier.weight", "classifier.bias"],
            9,
        ),
        (lambda: timm.create_model("resnet10t", num_classes=0), [], 0),
        (lambda: timm.create_model("resnet10t", features_only=True), [], None),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1)), [], None),
        (lambda: nn.Sequential(nn.Conv2d(3, 6, 32), nn.Flatten()), ["0.weight", "0.bias"], 6),
        (lambda: nn.BatchNorm2d(3), [], None),
        (lambda: Pair(), [], None),
        (lambda: Odd(smallest=1000), [], None),
        (
            lambda: torchvision.models.squeezenet1_1(num_classes=7),
            ["classifier.1.weight", "classifier.1.bias"],
            7,
        ),
    ],
)
def test_the_classifier_gives_the_logits(model, keys: list[str], outputs: int | None) -> None:
    assert classifier_keys(model()) == keys
    assert count_outputs(model()) == outputs


@pytest.mark.parametrize("smallest", [1, 100, 224])
def test_the_order_of_registration_and_the_size_do_not_matter(smallest: int) -> None:
    model = Odd(smallest=smallest)
    assert count_outputs(model) == 3
    assert classifier_keys(model) == ["fc.weight", "fc.bias", "auxiliary.2.weight", "auxiliary.2.bias"]


def test_the_auxiliary_heads_of_torchvision() -> None:
    with torch.device("meta"):
        google = torchvision.models.googlenet(init_weights=False, num_classes=128)
        inception = torchvision.models.inception_v3(init_weights=False, num_classes=9)
    for model, heads in ((google, {"aux1.fc2", "aux2.fc2", "fc"}), (inception, {"AuxLogits.fc", "fc"})):
        assert set(classifier_keys(model)) == {f"{head}.{tensor}" for head in heads for tensor in ("weight", "bias")}


def test_the_model_stays_as_it_was() -> None:
    model = Odd().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    classifier_keys(model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert (model.training, model.modes) == (True, [])
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(m._forward_hooks for m in model.modules())


def test_a_new_classifier_starts_at_zero() -> None:
    model = Odd()
    zero_parameters(model, ["fc.weight"])
    assert not model.fc.weight.any()
    assert model.fc.bias.any()
    assert model.fc.weight.requires_grad


def test_its_layers_are_linear_or_convolutional() -> None:
    layers = classifier_layers(Odd())
    assert {name: type(layer) for name, layer in layers.items()} == {"fc": nn.Linear, "auxiliary.2": nn.Linear}
    assert list(classifier_layers(torchvision.models.squeezenet1_1(num_classes=7))) == ["classifier.1"]
    normed = timm.create_model("resnet10t", num_classes=3)
    normed.fc = nn.Sequential(nn.LayerNorm(512), nn.Linear(512, 3))
    assert list(classifier_layers(normed)) == ["fc.1"]
    assert classifier_layers(timm.create_model("resnet10t", num_classes=0)) == {}
