"""RunFolder: what is written when, what survives, which state is read back."""

import csv
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rsconvert.training.run.folder as module
from rsconvert.checkpoint import digest, read_metadata, save
from rsconvert.checkpoint.ownership import LOCK
from rsconvert.errors import CheckpointError
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.run.folder import RunFolder

Held = Callable[[Path], tuple[dict[str, Any], dict[str, bytes]]]
FILES = {"best.safetensors", "config.json", "last.safetensors", "summary.csv"}


def started(path: Path, *, force: bool = False, **settings: Any) -> RunFolder:
    folder = RunFolder(path, force=force)
    folder.start({**asdict(FinetuneConfig(**settings)), "steps_per_epoch": 7})
    return folder


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file() and file.name != LOCK}


def alpha(net: SwitchableModel, value: float) -> SwitchableModel:
    net.alpha.data.fill_(value)
    return net


def test_an_epoch_leaves_four_files(tmp_path: Path, net: SwitchableModel) -> None:
    folder = started(tmp_path / "deep" / "run", epochs=3, class_weights=(1, 2, 3))
    assert contents(folder.path) == {}
    rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]
    folder.add_epoch(net, rows[:1], is_best=True)
    folder.add_epoch(net, rows, is_best=True)
    assert set(contents(folder.path)) == FILES
    with open(tmp_path / "deep" / "run" / "summary.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["epoch", "loss"], ["1", "0.5"], ["2", "0.25"]]
    settings = json.loads(folder.config.read_text(encoding="utf-8"))
    assert (settings["epochs"], settings["steps_per_epoch"], settings["class_weights"]) == (3, 7, [1.0, 2.0, 3.0])
    assert read_metadata(folder.last).resolutions == net.resolutions


def test_best_is_written_when_told(tmp_path: Path, net: SwitchableModel, held: Held) -> None:
    folder = started(tmp_path)
    kept = []
    for epoch, is_best in enumerate((True, False, True)):
        folder.add_epoch(alpha(net, epoch), [{"epoch": epoch}], is_best=is_best)
        kept.append(held(folder.best) == held(folder.last))
    assert kept == [True, False, True]


def test_the_states_of_an_earlier_run_end_with_the_first_of_the_new_one(tmp_path: Path) -> None:
    for fresh, steps, wanted in ((True, 9, [9]), (False, 10, [9, 10]), (True, 1, [1])):
        folder = RunFolder(tmp_path, keep=5, resume=True)
        folder.start({}, fresh=fresh)
        folder.add_state(steps, {"a": torch.zeros(1)}, {})
        assert sorted(int(file.stem) for file in folder.states.iterdir()) == wanted
    with pytest.raises(CheckpointError, match=r"holds state already.*--resume"):
        RunFolder(tmp_path)


@pytest.mark.parametrize("name", sorted(FILES))
def test_any_file_of_a_run_keeps_another_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(CheckpointError, match=rf"holds {name} already") as caught:
        RunFolder(tmp_path)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {name: b"mine"}


def test_an_earlier_run_stays_whole_until_the_first_epoch_is_in(
    tmp_path: Path, net: SwitchableModel, held: Held
) -> None:
    folder = started(tmp_path, seed=1)
    for epoch in (1, 2):
        folder.add_epoch(alpha(net, 1.0), [{"epoch": epoch}], is_best=True)
    before = contents(tmp_path)
    again = started(tmp_path, force=True, seed=2)
    assert contents(tmp_path) == before
    again.add_epoch(alpha(net, 2.0), [{"epoch": 1, "loss": 3}], is_best=True)
    assert (tmp_path / "summary.csv").read_text() == "epoch,loss\n1,3\n"
    assert json.loads(again.config.read_text())["seed"] == 2
    assert held(again.best) == held(again.last)
    assert again.last.read_bytes() != before["last.safetensors"]


def test_a_full_disk_in_the_first_epoch_keeps_the_earlier_run(
    tmp_path: Path, net: SwitchableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(tmp_path).add_epoch(net, [{"epoch": 1}], is_best=True)
    before = contents(tmp_path)

    def full(*_: object) -> None:
        raise CheckpointError("no room")

    monkeypatch.setattr(module, "write_network", full)
    with pytest.raises(CheckpointError, match="no room"):
        started(tmp_path, force=True).add_epoch(net, [{"epoch": 1}], is_best=True)
    assert contents(tmp_path) == before


def test_the_best_of_an_earlier_run_never_stands_beside_a_new_one(
    tmp_path: Path, net: SwitchableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(tmp_path).add_epoch(alpha(net, 1.0), [{"epoch": 1}], is_best=True)
    old, seen = contents(tmp_path), []

    def full(net: SwitchableModel, path: Path) -> None:
        seen.append(contents(tmp_path))
        if path.name == "last.safetensors":
            raise CheckpointError("no room")
        save(net, path)

    monkeypatch.setattr(module, "write_network", full)
    with pytest.raises(CheckpointError, match="no room"):
        started(tmp_path, force=True).add_epoch(alpha(net, 2.0), [{"epoch": 1}], is_best=True)
    assert [files["best.safetensors"] == old["best.safetensors"] for files in seen] == [True, False]
    assert all(set(files) == FILES for files in seen), "at no moment is there no best"
    assert contents(tmp_path) == {**old, "best.safetensors": seen[-1]["best.safetensors"]}


def test_the_first_epoch_ends_the_states_of_an_earlier_run_too(tmp_path: Path, net: SwitchableModel) -> None:
    old = started(tmp_path)
    old.add_state(7, {"a": torch.zeros(1)}, {})
    new = started(tmp_path, force=True)
    new.add_epoch(net, [{"epoch": 1}], is_best=True)
    assert list(new.states.iterdir()) == []


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(CheckpointError, match=r"can't be written .*; a folder is needed"):
            started(place)


TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3), "h": torch.ones(2, dtype=torch.bfloat16)}


def state_names(folder: RunFolder) -> list[str]:
    return sorted(file.name for file in folder.states.iterdir())


def test_a_state_comes_back_and_the_newest_few_are_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, keep=2)
    assert folder.newest_state() is None
    for steps in (9, 10, 100):
        folder.add_state(steps, {**TENSORS, "steps": torch.tensor(steps)}, {"sums": [0.1 + 0.2], "best": None})
    assert state_names(folder) == ["000000010.safetensors", "000000100.safetensors"]
    found = folder.newest_state()
    assert found is not None
    tensors, facts = found
    assert facts == {"sums": [0.1 + 0.2], "best": None}
    assert tensors["steps"] == 100
    for name, value in TENSORS.items():
        assert torch.equal(tensors[name], value)
        assert tensors[name].dtype == value.dtype


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def forge(file: Path) -> None:
    save_file(load_file(file), file, {"rsconvert_state": "{}", "digest": "0"})


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("harm", [cut, flip, forge, empty])
def test_a_broken_state_is_passed_over_and_alone_refused(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    folder = RunFolder(tmp_path, keep=2)
    folder.add_state(1, TENSORS, {"step": 1})
    folder.add_state(2, TENSORS, {"step": 2})
    harm(tmp_path / "state" / "000000002.safetensors")
    found = folder.newest_state()
    assert found is not None
    assert found[1] == {"step": 1}
    harm(tmp_path / "state" / "000000001.safetensors")
    with pytest.raises(CheckpointError, match=r"no state in .* is intact") as caught:
        folder.newest_state()
    assert "\n" not in str(caught.value)


def test_a_folder_is_held_once_it_exists(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.hold()
    assert not folder.path.exists()
    folder.start({})
    folder.hold()
    assert [file.name for file in folder.path.iterdir()] == [".lock"]
    folder.release()
    assert list(folder.path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', '{"version": 2, "facts": {}}', "[" * 99_999])
def test_a_state_with_the_right_checksum_and_other_facts_is_refused(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path, resume=True)
    folder.states.mkdir()
    header = {"rsconvert_state": text, "digest": digest(TENSORS, text)}
    save_file(TENSORS, folder.states / "000000001.safetensors", header)
    with pytest.raises(CheckpointError, match=r"no state in .* is intact"):
        folder.newest_state()


def test_a_full_disk_keeps_the_state_before(
    tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    folder = RunFolder(tmp_path, keep=1)
    folder.add_state(1, TENSORS, {"step": 1})
    with pytest.raises(CheckpointError, match="can't be written"), full_disk():
        folder.add_state(2, {"large": torch.zeros(10_000)}, {"step": 2})
    assert state_names(folder) == ["000000001.safetensors"]
    found = folder.newest_state()
    assert found is not None
    assert found[1] == {"step": 1}


def test_a_temporary_file_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / ".000000009.safetensors.77.part").write_bytes(b"half")
    assert RunFolder(tmp_path, resume=True).newest_state() is None
