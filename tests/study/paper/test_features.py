"""The classifier's input is what the models themselves give as features."""

from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
import torchvision
from rsconvert.study.paper.features import pooled_features
from torch import Tensor, nn

from rsconvert.data import Samples, normalize
from rsconvert.errors import UnsupportedModelError
from rsconvert.evaluation import validation_loader
from rsconvert.surgery import make_switchable


@pytest.mark.parametrize(
    ("model", "features"),
    [
        (
            lambda: timm.create_model("resnet10t", num_classes=5),
            lambda m, x: m.forward_head(m.forward_features(x), pre_logits=True),
        ),
        (
            lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
            lambda m, x: m.forward_head(m.forward_features(x), pre_logits=True),
        ),
        (
            lambda: torchvision.models.mobilenet_v2(num_classes=5),
            lambda m, x: m.features(x).mean((2, 3)),
        ),
    ],
)
def test_networks_of_both_libraries(
    model: Callable[[], nn.Module], features: Callable[[nn.Module, Tensor], Tensor], samples: Samples
) -> None:
    net = make_switchable(model(), (64, 48)).eval()
    few = samples.subset(range(3))
    found = pooled_features(net, (64, 56), validation_loader(net, few, (64, 56), batch_size=2, workers=0))
    views = next(iter(validation_loader(net, few, (64, 56), batch_size=3, workers=0)))[0]
    for place, r in enumerate((64, 56)):
        with torch.no_grad():
            expected = features(net.at(r), normalize(views[place], net.source.preprocessing))
        np.testing.assert_allclose(found[r], expected.numpy(), rtol=1e-3, atol=1e-4)
    assert not any(m._forward_pre_hooks for m in net.at(64).modules()), "the hooks are gone"


def test_a_network_without_a_classifier_is_refused(samples: Samples) -> None:
    net = make_switchable(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), (16, 12))
    with pytest.raises(UnsupportedModelError, match="Sequential has no classifier"):
        pooled_features(net, (16,), validation_loader(net, samples, (16,), batch_size=2, workers=0))
