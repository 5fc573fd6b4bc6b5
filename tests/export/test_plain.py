"""Plain exports by format: one place, or a folder of several."""

from pathlib import Path

import pytest
import torch

import rsconvert
from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.export import Exported, export_plain, open_export
from rsconvert.surgery import SwitchableModel, fold_batchnorm


@pytest.fixture(scope="module")
def net() -> SwitchableModel:
    torch.manual_seed(0)
    model = rsconvert.create_model("torchvision/shufflenet_v2_x0_5", num_classes=3)
    return rsconvert.make_switchable(model, (48, 32)).eval()


@torch.no_grad()
def test_one_takes_the_place_and_several_places_beside_it(net: SwitchableModel, tmp_path: Path) -> None:
    assert export_plain(net, "torchvision", tmp_path / "one.pth", [32]) == Exported({tmp_path / "one.pth": 32})
    files = export_plain(net, "torchvision", tmp_path / "my.net.safetensors", [32, 48]).files
    assert files == {tmp_path / f"my.net-{r}.safetensors": r for r in (48, 32)}
    for place, resolution in files.items():
        x = torch.rand(2, 3, resolution, resolution)
        assert torch.equal(open_export(place, net).run(x), net(x))


def test_folders_keep_their_whole_name(tmp_path: Path) -> None:
    net = rsconvert.make_switchable(rsconvert.create_model("test_efficientnet"), (48, 32)).eval()
    assert export_plain(net, "timm", tmp_path / "net.a1", [48, 32]).files[tmp_path / "net.a1-32"] == 32
    assert (tmp_path / "net.a1-32" / "config.json").is_file()


@pytest.mark.parametrize(
    ("format_", "name", "sides"), [("timm", "net", [48, 40, 32]), ("program", "net.pt2", [40, 32])]
)
def test_each_file_has_the_classifier_of_its_resolution(format_, name, sides, tmp_path: Path, draw_heads) -> None:
    model = rsconvert.create_model("test_resnet", num_classes=3)
    net = draw_heads(rsconvert.make_switchable(model, (48, 32), private=("bn", "head"))).eval()
    for place, side in export_plain(net, format_, tmp_path / name, sides).files.items():
        x = torch.rand(2, 3, side, side)
        assert torch.equal(open_export(place, net).run(x), net(x).detach())


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


@pytest.mark.parametrize(("form", "name"), [("torchvision", "x.safetensors"), ("program", "x.pt2")])
def test_what_was_folded_is_reported(net: SwitchableModel, tiny, tmp_path: Path, form: str, name: str) -> None:
    net = rsconvert.make_switchable(tiny(), (48, 32)).eval() if form == "program" else net
    result = export_plain(net, form, tmp_path / name, [48, 32], fold=True)
    assert {report.resolution: path for path, report in result.folding.items()} == {
        r: p for p, r in result.files.items()
    }
    expected = [fold_batchnorm(net.at(resolution), resolution)[1] for resolution in (48, 32)]
    assert [*result.folding.values()] == expected


def test_every_place_is_checked_before_anything_is_written(net: SwitchableModel, tmp_path: Path) -> None:
    (tmp_path / "x-32.pth").touch()
    with pytest.raises(CheckpointError, match=r"suffix '\.pth'; \.safetensors is accepted"):
        export_plain(net, "torchvision", tmp_path / "x.pth", [48, 32], fold=True, force=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x-32.pth"]
