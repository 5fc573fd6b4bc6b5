"""Sizes by name and resolution; multiply_adds against numbers worked out by hand, the model left as it was."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from rsconvert.data import resolution_of
from rsconvert.errors import ResolutionError
from rsconvert.evaluation import check_sizes, default_resolutions, multiply_adds, size_name
from rsconvert.surgery import SwitchableModel, make_switchable


def test_sizes_keep_their_order_each_once() -> None:
    assert check_sizes([160, (128, 200), 96, 160, (96, 96)]) == (160, (128, 200), 96)


def test_a_pair_counts_as_the_square_of_its_area() -> None:
    assert [resolution_of(size) for size in (160, (128, 200), (200, 128), (1, 2))] == [160, 160, 160, 1]
    assert [size_name(size) for size in (160, (128, 200))] == ["160", "128x200"]


@pytest.mark.parametrize("sizes", [[], [0], [(128,)], [(128, 0)], [(1, 2, 3)], ["160"], [("a", 3)]])
def test_what_is_no_size_is_refused(sizes: list[object]) -> None:
    with pytest.raises(ResolutionError):
        check_sizes(sizes)


def test_the_default_is_dense_where_the_network_works(
    tiny: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make_switchable(tiny(), (48, 32))
    assert default_resolutions(net) == (48, 40, 32)

    def refuse(self: SwitchableModel, resolution: int) -> nn.Module:
        raise ResolutionError("no")

    monkeypatch.setattr(SwitchableModel, "at", refuse)
    assert default_resolutions(net) == (48, 32)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.depthwise(self.bn(self.conv(x)).relu()).mean((2, 3)))


def by_hand(resolution: int) -> int:
    positions = ((resolution + 1) // 2) ** 2
    return positions * 8 * 3 * 9 + positions * 8 * 9 + 8 * 10


@pytest.mark.parametrize("resolution", [32, 24, 15])
def test_a_small_network_costs_what_a_count_by_hand_gives(resolution: int) -> None:
    assert multiply_adds(Small(), resolution) == by_hand(resolution)


def test_resnet18_costs_what_the_literature_says() -> None:
    model = torchvision.models.resnet18()
    assert multiply_adds(model, 224) == 1_814_073_344
    # All but the classifier's 512 · 1000 grows with the area.
    assert multiply_adds(model, 96) == round((1_814_073_344 - 512_000) * (96 / 224) ** 2) + 512_000


def test_trained_and_interpolated_paths_cost_the_same_code() -> None:
    net = make_switchable(Small(), (32, 16))
    assert multiply_adds(net.at(16), 16) == by_hand(16)
    assert multiply_adds(net.at(24), 24) == by_hand(24)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_precision_changes_no_count(dtype: torch.dtype) -> None:
    assert multiply_adds(Small().to(dtype), 16) == by_hand(16)


def test_the_model_is_left_as_it_was() -> None:
    model = Small()
    model.bn.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rng = torch.get_rng_state()
    multiply_adds(model, 16)
    assert [m.training for m in model.modules()] == [True, True, False, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_resolution_that_does_not_work_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4))
    with pytest.raises(ResolutionError, match="resolution 4 does not work in Sequential") as caught:
        multiply_adds(model, 4)
    assert "\n" not in str(caught.value)


class Keeps(Small):
    """Keeps its features, as models do for a later loss."""

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.bn(self.conv(x)).relu()
        return self.fc(self.depthwise(self.features).mean((2, 3)))


def test_a_model_that_keeps_activations_with_their_graph_is_counted() -> None:
    net = make_switchable(Keeps(), (32, 24))
    net.train()(views=[torch.randn(2, 3, r, r) for r in (32, 24)])
    assert net.at(24).features.grad_fn is not None
    assert [multiply_adds(net.at(r), r) for r in (32, 24, 28)] == [by_hand(r) for r in (32, 24, 28)]
