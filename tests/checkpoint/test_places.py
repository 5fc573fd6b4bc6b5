"""Places: which file each means, and that load takes all of them, in eval mode."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

import rsconvert
from rsconvert.checkpoint import file_of
from rsconvert.errors import CheckpointError
from rsconvert.surgery import SwitchableModel


def test_the_best_of_a_run_comes_first(tmp_path: Path) -> None:
    (tmp_path / "rsconvert.safetensors").touch()
    assert file_of(str(tmp_path)) == str(tmp_path / "rsconvert.safetensors")
    (tmp_path / "best.safetensors").touch()
    assert file_of(tmp_path) == str(tmp_path / "best.safetensors")
    assert file_of(f"local-dir:{tmp_path}") == str(tmp_path / "rsconvert.safetensors")
    assert file_of("./nowhere.safetensors") == "./nowhere.safetensors"


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no best\.safetensors or rsconvert\.safetensors"):
        file_of(str(tmp_path))
    with pytest.raises(CheckpointError, match=r"^local-dir:.* holds no rsconvert\.safetensors"):
        rsconvert.load(f"local-dir:{tmp_path}")


def test_load_takes_every_place(net: SwitchableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, hub = tmp_path / "run", tmp_path / "hub"
    run.mkdir()
    hub.mkdir()
    for file in (run / "best.safetensors", hub / "rsconvert.safetensors"):
        rsconvert.save(net.train(), file)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _, name, **__: str(hub / name))
    x = torch.rand(1, 3, 48, 48)
    for place in (run, str(run), run / "best.safetensors", hub, f"local-dir:{hub}", "hf-hub:somebody/rs"):
        again: Any = rsconvert.load(place)
        assert not any(module.training for module in again.modules())
        assert torch.equal(again(x), net.eval()(x))
        path = rsconvert.load(place, resolution=32)
        assert not any(module.training for module in path.modules())
