from collections.abc import Callable

import pytest
from torch import nn

from rsconvert import make_switchable
from rsconvert.errors import ResolutionError
from rsconvert.evaluation import check_sizes, default_resolutions, resolution_of, size_name
from rsconvert.surgery import SwitchableModel


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
