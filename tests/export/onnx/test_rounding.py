"""with_rounded_weights: integers times a scale per filter, once for all paths."""

import numpy as np
import pytest
import torch
from torch import nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.export.onnx.rounding import LEVELS, REDUCED, round_filters, with_rounded_weights
from rsconvert.quantization import quantize_
from rsconvert.surgery import SwitchableModel


def test_filters_are_rounded_to_integers_of_their_own_scale_and_sum() -> None:
    weight = torch.randn(5, 30, 2, 2, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 6).view(5, 1, 1, 1)
    for levels in (LEVELS, REDUCED):
        scale = np.abs(weight.numpy()).reshape(5, -1).max(1).astype(np.float64) / levels
        steps = weight.double().numpy().reshape(5, -1) / scale[:, None]
        found = round_filters(weight, levels).double().numpy().reshape(5, -1) / scale[:, None]
        np.testing.assert_allclose(found, np.rint(found), atol=1e-4)
        assert (np.abs(np.rint(found)).max(1) == levels).all()
        errors = np.rint(found) - steps
        assert np.abs(errors).max() < 1
        assert (np.abs(errors.sum(1)) <= 0.5 + 1e-9).all()
        assert (np.abs((np.rint(steps) - steps).sum(1)) > 0.5).any()  # to the nearest they do not
        moved = np.rint(found) != np.rint(steps)
        assert (moved.sum(1) == np.rint(np.abs((np.rint(steps) - steps).sum(1)))).all()  # no more than it takes


def test_a_filter_of_zeros_stays() -> None:
    assert torch.equal(round_filters(torch.zeros(2, 3), LEVELS), torch.zeros(2, 3))


def test_shared_weights_and_private_classifiers_are_rounded_and_nothing_else(scrambled_net) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.up, self.fc = nn.ConvTranspose2d(4, 4, 2), nn.Linear(4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.up(self.bn(self.conv(x))).mean((2, 3)))

        def get_classifier(self) -> nn.Module:
            return self.fc

    torch.manual_seed(0)
    net: SwitchableModel = scrambled_net(Model())
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    after = with_rounded_weights(net).state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"conv.weight", "fc.weight"}
    torch.testing.assert_close(after["conv.weight"], round_filters(before["conv.weight"], LEVELS))


def test_a_network_of_few_bits_is_refused(scrambled_net) -> None:
    net = scrambled_net(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)))
    quantize_(net, "2/32")
    with pytest.raises(UnsupportedModelError, match=r"holds weights of few bits already; int8 is made of float ones"):
        with_rounded_weights(net)
