"""The folder for a hub: stock timm opens it strictly, rsconvert reads it back, a wrong one is found."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor

import rsconvert
from rsconvert.errors import CheckpointError, RSConvertError, UnsupportedModelError
from rsconvert.export import export_hub, verify_export
from rsconvert.surgery import SwitchableModel, scrambled, write

RESOLUTIONS = (64, 48, 32)
FILES = ["README.md", "config.json", "model.safetensors", "rsconvert.safetensors"]


def switchable(name: str) -> SwitchableModel:
    torch.manual_seed(0)
    net = rsconvert.make_switchable(rsconvert.create_model(name, num_classes=5), RESOLUTIONS).eval()
    for resolution in RESOLUTIONS:
        write(net.at(resolution), scrambled(net.at(resolution), resolution))
    return net


def images(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))


@pytest.fixture
def net() -> SwitchableModel:
    return switchable("test_resnet")


@torch.no_grad()
def test_the_folder_of_a_timm_network(net: SwitchableModel, tmp_path: Path) -> None:
    net.source = replace(net.source, class_names=("tench", "dog", "horn", "church", "ünder"))
    folder = export_hub(net, tmp_path / "out", licence="mit")
    assert sorted(entry.name for entry in folder.iterdir()) == FILES
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(model(images(64)), net(images(64)))
    assert load_file(folder / "model.safetensors").keys() == model.state_dict().keys()
    config = json.loads((folder / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [3, 64, 64]
    assert config["label_names"][0] == "tench"
    again = rsconvert.load(folder / "rsconvert.safetensors").eval()
    assert all(torch.equal(again(images(side)), net(images(side))) for side in (*RESOLUTIONS, 40))
    assert "license: mit" in (folder / "README.md").read_text()
    assert list(tmp_path.iterdir()) == [folder]


@torch.no_grad()
def test_the_folder_of_a_torchvision_network(tmp_path: Path) -> None:
    net = switchable("torchvision/shufflenet_v2_x0_5")
    folder = export_hub(net, tmp_path / "out")
    assert sorted(entry.name for entry in folder.iterdir()) == [name for name in FILES if name != "config.json"]
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=5).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    assert torch.equal(model(images(64)), net(images(64)))
    assert verify_export(folder, net).passed


def test_verify_takes_the_folder_at_every_size(net: SwitchableModel, tmp_path: Path) -> None:
    folder = export_hub(net, tmp_path / "out")
    result = verify_export(folder, net)
    assert result.passed
    assert list(result.sizes) == ["64", "56", "48", "40", "32", "64x32"]
    for side in RESOLUTIONS:
        other = switchable("test_resnet")
        write(other.at(side), scrambled(other.at(side), 99))
        assert verify_export(folder, other).sizes[str(side)].difference > 1e-3


def test_two_networks_in_one_folder_are_found(net: SwitchableModel, tmp_path: Path) -> None:
    folder = export_hub(net, tmp_path / "out")
    plain = load_file(folder / "model.safetensors")
    save_file(plain | {"conv1.0.weight": plain["conv1.0.weight"] + 1}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"holds two networks: model\.safetensors has another conv1\.0\.weight"):
        verify_export(folder, net)


@pytest.mark.parametrize("name", [None, "model.py:build", "hf-hub:a/b"])
def test_a_network_without_such_a_name_is_refused(net: SwitchableModel, tmp_path: Path, name: str | None) -> None:
    net.source = replace(net.source, architecture=name)
    with pytest.raises(UnsupportedModelError, match=name or "without a name") as caught:
        export_hub(net, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_nothing_but_an_export(net: SwitchableModel, tmp_path: Path) -> None:
    folder = export_hub(net, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"out exists.*--force"):
        export_hub(net, folder)
    export_hub(net, folder, force=True)
    (folder / "thesis.txt").write_text("the only copy")
    with pytest.raises(CheckpointError, match=r"thesis\.txt"):
        export_hub(net, folder, force=True)


def test_a_failure_leaves_the_old_folder(
    net: SwitchableModel, tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    folder = export_hub(net, tmp_path / "out")
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    with full_disk(), pytest.raises(CheckpointError, match="room"):
        export_hub(net, folder, force=True)
    net.source = replace(net.source, training={"teacher": object()})
    with pytest.raises(RSConvertError, match="JSON"):
        export_hub(net, folder, force=True)
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]
