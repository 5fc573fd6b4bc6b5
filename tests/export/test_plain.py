"""Plain exports by format: one place, or a folder of several."""

from pathlib import Path

import pytest
import torch

import rsconvert
from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.export import export_plain, open_export
from rsconvert.surgery import SwitchableModel


@pytest.fixture(scope="module")
def net() -> SwitchableModel:
    torch.manual_seed(0)
    model = rsconvert.create_model("torchvision/shufflenet_v2_x0_5", num_classes=3)
    return rsconvert.make_switchable(model, (48, 32)).eval()


@torch.no_grad()
def test_one_takes_the_place_and_several_places_beside_it(net: SwitchableModel, tmp_path: Path) -> None:
    assert export_plain(net, "torchvision", tmp_path / "one.pth", [32]) == {32: tmp_path / "one.pth"}
    places = export_plain(net, "torchvision", tmp_path / "my.net.safetensors", [32, 48])
    assert places == {r: tmp_path / f"my.net-{r}.safetensors" for r in (48, 32)}
    for resolution, place in places.items():
        x = torch.rand(2, 3, resolution, resolution)
        assert torch.equal(open_export(place, net).run(x), net(x))


def test_folders_keep_their_whole_name(tmp_path: Path) -> None:
    net = rsconvert.make_switchable(rsconvert.create_model("test_efficientnet"), (48, 32)).eval()
    assert export_plain(net, "timm", tmp_path / "net.a1", [48, 32])[32] == tmp_path / "net.a1-32"
    assert (tmp_path / "net.a1-32" / "config.json").is_file()


def test_a_place_that_is_taken_stops_all(net: SwitchableModel, tmp_path: Path) -> None:
    (tmp_path / "net-32.pt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"net-32\.pt exists; .*--force"):
        export_plain(net, "torchvision", tmp_path / "net.pt", [48, 32])
    assert [entry.name for entry in tmp_path.iterdir()] == ["net-32.pt"]
    assert (tmp_path / "net-32.pt").read_text() == "mine"
    export_plain(net, "torchvision", tmp_path / "net.pt", [48, 32], force=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["net-32.pt", "net-48.pt"]


def test_only_programs_are_compiled(net: SwitchableModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="aot is set for the format torchvision"):
        export_plain(net, "torchvision", tmp_path / "x.safetensors", [32], aot=True)
