"""One process at a time in a folder; the locks and temporary files of processes that were killed are recognised."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rsconvert.checkpoint.ownership as module
from rsconvert.checkpoint import holds_nothing, left_behind, owned, replacing, scratch, temporary
from rsconvert.checkpoint.ownership import LOCK, is_running
from rsconvert.errors import CheckpointError

GONE = 2**22 + 1  # above every process id of Linux
# Holds the lock of a folder, as another process, until it is killed.
HOLDER = """
import fcntl, json, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(file, fcntl.LOCK_EX)
os.pwrite(file, json.dumps({"pid": os.getpid(), "host": "far"}).encode(), 0)
print(flush=True)
time.sleep(60)
"""


def take(folder: Path) -> None:
    with owned(folder):
        raise AssertionError("it was free")


@pytest.mark.skipif(module.fcntl is None, reason="Windows has no such locks")
def test_a_folder_is_one_processes_until_it_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / LOCK], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(CheckpointError, match=rf"is in use by process {other.pid} on 'far'") as caught:
            take(tmp_path)
        other.kill()
    assert "\n" not in str(caught.value)
    assert (tmp_path / LOCK).exists()
    with owned(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": "x"}', '{"pid": 1e400, "host": 5}'])
def test_a_lock_with_other_content_is_stale(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with owned(tmp_path):
        pass


def test_without_locks_of_the_system_the_named_process_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fcntl", None)
    for pid, host, free in ((os.getppid(), socket.gethostname(), False), (GONE, socket.gethostname(), True)):
        (tmp_path / LOCK).write_text(json.dumps({"pid": pid, "host": host}))
        if free:
            with owned(tmp_path):
                pass
        else:
            with pytest.raises(CheckpointError, match=f"in use by process {pid}"):
                take(tmp_path)


def test_a_process_that_is_gone_is_known() -> None:
    assert is_running(os.getpid())
    assert is_running(1)
    assert os.name == "nt" or not is_running(GONE)


@pytest.mark.skipif(os.name == "nt", reason="Windows can't say whether a process runs")
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    target = tmp_path / "net.safetensors"
    here = temporary(target, "part").name.split(".")[-2].partition("-")[0]
    writers = ((target.name, GONE), (target.name, GONE + 1), ("x", GONE), (target.name, os.getppid()))
    left, older, other, running = (tmp_path / f".{name}.{here}-{pid}.part" for name, pid in writers)
    left.mkdir()
    (tmp_path / LOCK).touch()
    for file in (left / ".tmpOfALibrary", older, other):
        file.touch()
    assert holds_nothing(tmp_path)
    (tmp_path / LOCK).unlink()
    running.touch()
    assert not holds_nothing(tmp_path)
    assert sorted(left_behind(tmp_path, target.name)) == sorted([left, older])
    assert sorted(left_behind(tmp_path)) == sorted([left, older, other])
    assert left_behind(tmp_path, target.name, "scratch") == []
    with replacing(target) as part:
        part.write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted([target, other, running])
    assert time.time() - target.stat().st_mtime < 60


def test_a_process_of_the_same_number_may_have_been_killed(tmp_path: Path) -> None:
    left = temporary(tmp_path / "net", "part")
    left.mkdir()
    (left / "half").touch()
    with scratch(tmp_path / "net", "part") as folder:
        assert (folder, list(folder.iterdir())) == (left, [])
    assert list(tmp_path.iterdir()) == []


def test_what_another_host_writes_is_left_alone_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "net.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "far-away.example")
        patch.setattr(os, "getpid", lambda: GONE)
        theirs = temporary(target, "part")
    theirs.touch()
    assert left_behind(tmp_path) == []
    with replacing(target) as part:
        assert part.parent.name != theirs.name
        part.write_text("new")
    assert theirs.exists()
    os.utime(theirs, (time.time() - 90_000,) * 2)
    assert left_behind(tmp_path, target.name) == [theirs]
