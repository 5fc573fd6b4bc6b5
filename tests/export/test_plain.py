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
def test_one_takes_the_place_and_several_a_folder(net: SwitchableModel, tmp_path: Path) -> None:
    assert export_plain(net, "torchvision", tmp_path / "one.pth", [32]) == {32: tmp_path / "one.pth"}
    places = export_plain(net, "torchvision", tmp_path / "all")
    assert places == {r: tmp_path / "all" / f"{r}.safetensors" for r in (48, 32)}
    for resolution, place in places.items():
        x = torch.rand(2, 3, resolution, resolution)
        assert torch.equal(open_export(place, net).run(x), net(x))


def test_a_folder_that_exists_is_written_into_with_force_alone(net: SwitchableModel, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"can't be made a folder .*--force"):
        export_plain(net, "torchvision", tmp_path)
    export_plain(net, "torchvision", tmp_path, force=True)
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == ["32.safetensors", "48.safetensors", "notes.txt"]
    with pytest.raises(CheckpointError, match="can't be made a folder"):
        export_plain(net, "torchvision", tmp_path / "none" / "out")


def test_only_programs_are_compiled(net: SwitchableModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="aot is set for the format torchvision"):
        export_plain(net, "torchvision", tmp_path / "x.safetensors", [32], aot=True)
