"""Values that differ between the sets."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from rsconvert.surgery import SwitchableModel
from rsconvert.surgery.trial import scrambled
from rsconvert.surgery.trial import write as write_values


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def write() -> Callable[[nn.Module, int], nn.Module]:
    """Write the values that belong to one resolution into the BatchNorms of a plain model or a live path."""

    def writer(model: nn.Module, resolution: int) -> nn.Module:
        write_values(model, scrambled(model, resolution))
        return model

    return writer


@pytest.fixture
def write_all(
    write: Callable[[nn.Module, int], nn.Module], draw_heads: Callable[[SwitchableModel], SwitchableModel]
) -> Callable[[SwitchableModel], SwitchableModel]:
    """Give each set of a network, made from a fresh model, values of its own."""

    def writer(net: SwitchableModel) -> SwitchableModel:
        for resolution in net.resolutions:
            write(net.at(resolution), resolution)
        return draw_heads(net)

    return writer


@pytest.fixture
def process_group(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
