"""Places: which file each means, that load takes all of them, in eval mode, and what a file will need."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

import rsconvert
from rsconvert.checkpoint import file_of, loading_note, write_network
from rsconvert.errors import CheckpointError, NamelessModelWarning
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


def changed(net: SwitchableModel, **facts: object) -> SwitchableModel:
    net.source = replace(net.source, **facts)
    return net


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"architecture": None}, "no name, so its file will need the plain model: rsconvert.load(path, model=…), or"),
        ({"architecture": None, "built_with": "build"}, "load(path, model=…, build=…), or --model FILE.py:FUNCTION"),
        ({"architecture": "my.py:build"}, "my.py:build is a function of your own, so .* again: --model my.py:build"),
        ({"built_with": "build"}, "made by build=, so its file will need it again"),
    ],
)
def test_what_a_file_will_need(net: SwitchableModel, facts: dict[str, object], words: str, tmp_path: Path) -> None:
    note = loading_note(changed(net, **facts))
    assert note is not None
    assert "\n" not in note
    start, _, end = words.partition(" .* ")
    assert start in note
    assert end in note
    with pytest.warns(NamelessModelWarning) as caught:
        rsconvert.save(net, tmp_path / "net.safetensors")
    (warning,) = caught
    assert (str(warning.message), warning.filename) == (note, __file__)


@pytest.mark.parametrize("write", [rsconvert.save, write_network])
@pytest.mark.parametrize("name", ["test_efficientnet", "torchvision/resnet18", None])
def test_nothing_is_said_where_the_name_tells_all_or_it_was_said(
    net: SwitchableModel, name: str | None, write: Callable[..., None], tmp_path: Path
) -> None:
    if name is None and write is rsconvert.save:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(changed(net, architecture=name), tmp_path / "net.safetensors")
