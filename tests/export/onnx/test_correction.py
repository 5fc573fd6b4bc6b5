"""Shifts: with them each BatchNorm of a network with other weights receives what it received before, in the mean."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rsconvert.errors import CheckpointError
from rsconvert.export.onnx.correction import apply_shifts, measure_shifts
from rsconvert.surgery import SwitchableModel

SIDES = (32, 16)


class Twice(nn.Module):
    """A BatchNorm behind a ReLU, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.again = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.twice = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x)).relu()
        return self.twice(self.again(self.twice(self.again(x)).relu()))


@pytest.fixture
def nets(scrambled_net: Callable[..., SwitchableModel]) -> tuple[SwitchableModel, SwitchableModel]:
    """A network, and one with weights a little larger."""
    torch.manual_seed(0)
    exact, other = (scrambled_net(model, SIDES) for model in [Twice()] * 2)
    with torch.no_grad():
        other.at(32).conv.weight.mul_(1.05)
        other.at(32).again.weight.add_(0.02)
    return exact, other


def means(path: nn.Module, images: Tensor) -> Tensor:
    """Return the mean of each channel of what the two BatchNorms give, of the second one's first call too."""
    found: list[Tensor] = []
    handles = [
        bn.register_forward_hook(lambda m, a, y: found.append(y.mean((0, 2, 3)))) for bn in (path.bn, path.twice)
    ]
    path(images)
    for handle in handles:
        handle.remove()
    return torch.cat(found)


@torch.no_grad()
def test_the_means_come_back(nets) -> None:
    exact, other = nets
    images = {side: torch.rand(8, 3, side, side, generator=torch.Generator().manual_seed(side)) for side in SIDES}
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    shifts = measure_shifts(exact, other, [images])
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())
    wrong = {side: (means(other.at(side), x) - means(exact.at(side), x)).abs() for side, x in images.items()}
    apply_shifts(other, shifts)
    changed = {name for name, tensor in other.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{bn}{at}.running_mean" for bn in ("bn", "twice") for at in ("", ".at.16")}
    for side, x in images.items():
        left = (means(other.at(side), x) - means(exact.at(side), x)).abs()
        assert left[:4].max() < 1e-3 * wrong[side][:4].max()
        assert left[4:].sum() < 0.8 * wrong[side][4:].sum()  # one shift for two calls


@torch.no_grad()
def test_a_mean_that_all_paths_share_takes_their_average(scrambled_net) -> None:
    net = scrambled_net(nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)), SIDES, private=False)
    before = net.at(32)[1].running_mean.clone()
    apply_shifts(net, {"32": {"1": [1.0, 2.0]}, "16": {"1": [3.0, -2.0]}})
    torch.testing.assert_close(net.at(16)[1].running_mean, before + torch.tensor([2.0, 0.0]))


@pytest.mark.parametrize("shifts", [{"bn": [1.0]}, {"conv": [1.0] * 4}, {"bn9": [1.0] * 4}])
def test_shifts_of_another_network_are_refused(nets, shifts) -> None:
    with pytest.raises(CheckpointError, match=r"^int8 in the checkpoint shifts \d means of .* quantize again\.$"):
        apply_shifts(nets[0], {"32": shifts, "16": {}})
