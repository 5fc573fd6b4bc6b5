"""A file is written whole or not at all; a foreign one is refused in one line."""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rsconvert.checkpoint import tensors as module
from rsconvert.checkpoint.tensors import digest, fill, read_header, read_tensors, replacing, write_tensors
from rsconvert.errors import CheckpointError

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)}


def refused(call: Callable[[], Any], match: str = "") -> str:
    with pytest.raises(CheckpointError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    write_tensors(TENSORS, tmp_path / "x.safetensors", {"format": "pt", "which": "old"})
    return tmp_path / "x.safetensors"


def assert_untouched(old: Path) -> None:
    assert read_header(old)["which"] == "old"
    assert torch.equal(load_file(old)["a"], TENSORS["a"])
    assert [entry.name for entry in old.parent.iterdir()] == [old.name]


def test_what_is_written_is_read(old: Path) -> None:
    read = read_tensors(old)
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], TENSORS[name]) and read[name].dtype == TENSORS[name].dtype for name in TENSORS)
    assert read_header(old) == {"format": "pt", "which": "old"}


def test_only_the_named_tensors_are_read(old: Path) -> None:
    assert list(read_tensors(old, ["b", "c"])) == ["b"]


def test_memory_that_is_shared_or_strided_is_stored_as_it_reads(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    given = {"base": base, "same": base, "part": base[1:], "turned": base.t(), "grad": nn.Parameter(base)}
    write_tensors(given, tmp_path / "x.safetensors", {})
    read = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(read[name], given[name]) for name in given)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_file_has_ordinary_permissions(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_tensors(TENSORS, tmp_path / "x.safetensors", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o666 & ~umask


def test_a_link_is_followed(tmp_path: Path, old: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "best.safetensors"
    link.symlink_to(old)
    write_tensors(TENSORS, link, {"which": "new"})
    assert link.is_symlink()
    assert read_header(old)["which"] == "new"
    assert [entry.name for entry in link.parent.iterdir()] == [link.name]


def test_a_link_to_nowhere_makes_the_file(tmp_path: Path) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to("target.safetensors")
    write_tensors(TENSORS, link, {})
    assert link.is_symlink()
    assert read_tensors(tmp_path / "target.safetensors").keys() == TENSORS.keys()


def test_a_full_disk_leaves_the_old_file(old: Path, full_disk: Callable[[], AbstractContextManager[None]]) -> None:
    with full_disk():
        refused(lambda: write_tensors({"a": torch.zeros(5000)}, old, {}), "File too large.*make room")
    assert_untouched(old)


@pytest.mark.parametrize("step", ["save_file", "os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_anywhere_leaves_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*arguments: Any) -> None:
        if step == "save_file":
            Path(arguments[1]).write_bytes(b"half")
        raise error

    monkeypatch.setattr(f"{module.__name__}.{step}", fail)
    with pytest.raises(CheckpointError if isinstance(error, OSError) else KeyboardInterrupt):
        write_tensors(TENSORS, old, {"which": "new"})
    monkeypatch.undo()
    assert_untouched(old)


def test_a_block_that_fails_leaves_the_old_file(old: Path) -> None:
    def write() -> None:
        with replacing(old) as part:
            part.write_bytes(b"half")
            raise RuntimeError("torch's writer failed")

    refused(write, "torch's writer failed")
    assert_untouched(old)


def test_a_place_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    refused(lambda: write_tensors(TENSORS, tmp_path / "none" / "x.safetensors", {}), "No such file or directory")
    refused(lambda: write_tensors(TENSORS, tmp_path, {}), "no ordinary file")
    refused(lambda: write_tensors(TENSORS, os.devnull, {}), "no ordinary file")
    assert list(tmp_path.iterdir()) == []
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 60, -25, -1])
def test_a_truncated_file_is_refused(old: Path, kept: int) -> None:
    old.write_bytes(old.read_bytes()[:kept])
    for call in (read_header, read_tensors):
        assert str(old) in refused(lambda call=call: call(old), "not an intact safetensors file")


@pytest.mark.parametrize(
    "data", [b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(500), b"PK\x03\x04" + bytes(100), b"{}"]
)
def test_another_kind_of_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    refused(lambda: read_header(tmp_path / "x.safetensors"), "foreign, truncated or damaged")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("x.onnx", "Give the file that it was exported from"),
        ("X.PT2", "can be verified"),
        ("x.pth", "wrap MODEL --weig"),
    ],
)
def test_the_ending_of_another_kind_says_what_to_do(tmp_path: Path, name: str, remedy: str) -> None:
    (tmp_path / name).write_bytes(bytes(100))
    refused(lambda: read_header(tmp_path / name), remedy)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    refused(lambda: read_header(tmp_path / "x.safetensors"), "is not a file")
    refused(lambda: read_header(tmp_path), "is not a file")


def test_a_file_without_metadata_has_an_empty_header(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors")
    assert read_header(tmp_path / "x.safetensors") == {}


def test_fill_tells_a_module_its_version() -> None:
    told: list[int] = []

    class Versioned(nn.Linear):
        _version = 7

        def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest) -> None:
            told.append(local_metadata["version"])
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    model = nn.Sequential(Versioned(2, 1))
    fill(model, {name: tensor + 1 for name, tensor in model.state_dict().items()}, "x")
    assert told == [7]


def test_fill_takes_the_dtypes_and_keeps_the_ties() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[1].weight = model[0].weight
    shared = model[0].weight
    given = {key: torch.ones_like(t).half() if t.is_floating_point() else t for key, t in model.state_dict().items()}
    fill(model, given, "x")
    assert model[1].weight is model[0].weight is shared
    assert {t.dtype for t in model.state_dict().values()} == {torch.float16, torch.int64}
    assert shared.requires_grad
    assert bool((shared == 1).all())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"weight": None}, "weight"),
        ({"extra": torch.ones(1)}, "extra"),
        ({"weight": torch.ones(3, 2)}, "weight"),
        ({"weight": torch.ones(2, 3, dtype=torch.int64)}, "weight"),
    ],
)
def test_fill_refuses_what_does_not_fit(change: dict[str, torch.Tensor | None], name: str) -> None:
    model = nn.Linear(3, 2)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    given = {"weight": torch.ones(2, 3), "bias": torch.ones(2), **change}
    refused(lambda: fill(model, {k: t for k, t in given.items() if t is not None}, "file"), f"file .*Linear.*{name}")
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_the_digest_tells_names_types_shapes_and_values_apart() -> None:
    zeros = torch.zeros(4)
    seen = [
        digest({"a": zeros}),
        digest({"b": zeros}),
        digest({"a": zeros.view(2, 2)}),
        digest({"a": zeros.to(torch.int32)}),
        digest({"a": torch.ones(4)}),
        digest({"a": zeros}, "facts"),
    ]
    assert len(set(seen)) == len(seen)
    assert digest({"a": torch.ones(2, 3), "b": zeros}) == digest(
        {"b": zeros, "a": torch.ones(3, 2).T.contiguous().clone()}
    )
