"""States on disk: the newest intact one is read, a broken one never, an older run's never."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rsconvert.errors import CheckpointError
from rsconvert.training.run.state_files import StateFiles

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3), "h": torch.ones(2, dtype=torch.bfloat16)}


def names(files: StateFiles) -> list[str]:
    return sorted(file.name for file in files.folder.iterdir())


def test_a_state_comes_back_and_the_newest_few_are_kept(tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "state", keep=2)
    assert files.newest() is None
    for steps in (9, 10, 100):
        files.write(steps, {**TENSORS, "steps": torch.tensor(steps)}, {"sums": [0.1 + 0.2], "best": None})
    assert names(files) == ["000000010.safetensors", "000000100.safetensors"]
    found = files.newest()
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
    files = StateFiles(tmp_path, keep=2)
    files.write(1, TENSORS, {"step": 1})
    files.write(2, TENSORS, {"step": 2})
    harm(tmp_path / "000000002.safetensors")
    found = files.newest()
    assert found is not None
    assert found[1] == {"step": 1}
    harm(tmp_path / "000000001.safetensors")
    with pytest.raises(CheckpointError, match=r"no state in .* is intact") as caught:
        files.newest()
    assert "\n" not in str(caught.value)


def test_a_full_disk_keeps_the_state_before(
    tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    files = StateFiles(tmp_path, keep=1)
    files.write(1, TENSORS, {"step": 1})
    with pytest.raises(CheckpointError, match="can't be written"), full_disk():
        files.write(2, {"large": torch.zeros(10_000)}, {"step": 2})
    assert names(files) == ["000000001.safetensors"]
    found = files.newest()
    assert found is not None
    assert found[1] == {"step": 1}


def test_a_temporary_file_is_no_state(tmp_path: Path) -> None:
    (tmp_path / ".000000009.safetensors.77.part").write_bytes(b"half")
    assert StateFiles(tmp_path, keep=1).newest() is None
