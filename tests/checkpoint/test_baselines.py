"""Networks to compare with: each kind of place, and plain models built as a network was."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import rsconvert
from rsconvert.checkpoint import builder_of, load_among, load_baseline
from rsconvert.errors import ConfigError
from rsconvert.models import source_of
from rsconvert.surgery import SwitchableModel

NAME = "test_efficientnet"


@pytest.fixture(scope="module")
def net() -> SwitchableModel:
    return rsconvert.make_switchable(rsconvert.create_model(NAME, num_classes=3), (48, 32))


def test_a_checkpoint_weights_and_a_name_are_networks(net: SwitchableModel, tmp_path: Path) -> None:
    rsconvert.save(net, tmp_path / "net.safetensors")
    save_file(net.extract(48).state_dict(), tmp_path / "plain.safetensors")
    for again in (
        load_baseline(f"{tmp_path}/net.safetensors", net, None),
        load_among(f"{tmp_path}/net.safetensors", "x"),
    ):
        assert isinstance(again, SwitchableModel)
        assert again.source == net.source
    plain = load_baseline(str(tmp_path / "plain.safetensors"), net, None)
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in net.extract(48).state_dict().items())
    assert source_of(plain).preprocessing == net.source.preprocessing


def test_weights_need_a_name_or_a_function(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    save_file(model.state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(ConfigError, match=r"plain weights, and the network names no model of a library; .* --model"):
        load_baseline(str(tmp_path / "plain.safetensors"), rsconvert.make_switchable(model, (48, 32)), None)


def test_a_builder_makes_the_same_kind_of_model(net: SwitchableModel) -> None:
    build = builder_of(net, None)
    assert build is not None
    assert {key: v.shape for key, v in build().state_dict().items()} == {
        key: v.shape for key, v in net.extract(48).state_dict().items()
    }
    assert builder_of(rsconvert.make_switchable(torch.nn.Sequential(torch.nn.BatchNorm2d(3)), (48, 32)), None) is None
