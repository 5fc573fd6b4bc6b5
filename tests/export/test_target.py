"""Places that an export takes or refuses, folders replaced whole or not at all, and the record of what was written."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import rsconvert
from rsconvert.checkpoint import temporary
from rsconvert.data import Preprocessing
from rsconvert.errors import CheckpointError, UnsupportedModelError
from rsconvert.export import Agreement, Exported, Verification
from rsconvert.export.target import check_folder, check_target, image_facts, numbered, replacing_folder
from rsconvert.surgery import FoldReport


def test_one_keeps_its_place_and_several_are_numbered() -> None:
    assert numbered(Path("a/my.net.pt2"), [32]) == {Path("a/my.net.pt2"): 32}
    assert numbered(Path("a/my.net.pt2"), [48, 32]) == {Path("a/my.net-48.pt2"): 48, Path("a/my.net-32.pt2"): 32}
    assert list(numbered(Path("net.a1"), [48, 32], is_folder=True)) == [Path("net.a1-48"), Path("net.a1-32")]


def test_a_free_place_is_taken(tmp_path: Path) -> None:
    check_target(tmp_path / "out.pt2", force=False, suffixes=(".pt2",))
    check_target(tmp_path / "any", force=False)


def test_another_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.pt2").touch()
    for path, words in (
        (tmp_path / "none" / "out.pt2", "none is no folder"),
        (tmp_path / "out.bin", r"suffix '\.bin'; \.pt2, \.onnx is accepted"),
        (tmp_path / "old.pt2", r"old\.pt2 exists; .*--force"),
    ):
        with pytest.raises(CheckpointError, match=words):
            check_target(path, force=False, suffixes=(".pt2", ".onnx"))
    check_target(tmp_path / "old.pt2", force=True)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("old")
    return tmp_path / "out"


def test_the_new_folder_takes_the_place_of_the_old(old: Path) -> None:
    with replacing_folder(old) as part:
        (part / "b.txt").write_text("new")
        assert [entry.name for entry in old.iterdir()] == ["a.txt"]
    assert [entry.name for entry in old.iterdir()] == ["b.txt"]
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize(
    ("error", "seen", "words"),
    [
        (OSError("no room"), CheckpointError, r"out can't be written \(no room\)"),
        (CheckpointError("a file of its own"), CheckpointError, r"out can't be written \(a file of its own\)"),
        (UnsupportedModelError("another network"), UnsupportedModelError, "^another network$"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
)
def test_an_error_leaves_the_old_folder(old: Path, error: BaseException, seen, words: str) -> None:
    def write() -> None:
        with replacing_folder(old) as part:
            (part / "b.txt").write_text("new")
            raise error

    with pytest.raises(seen, match=words):
        write()
    assert (old / "a.txt").read_text() == "old"
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.skipif(os.name == "nt", reason="Windows can't say whether a process runs")
@pytest.mark.parametrize("is_there", [False, True])
def test_an_old_folder_that_a_killed_process_had_moved_aside(old: Path, is_there: bool) -> None:
    aside = temporary(old, "old")
    aside = aside.with_name(aside.name.replace(f"-{os.getpid()}", f"-{2**22 + 1}"))  # above every process id of Linux
    shutil.copytree(old, aside) if is_there else old.rename(aside)
    with pytest.raises(CheckpointError, match="no room"), replacing_folder(old):
        raise OSError("no room")
    assert (old / "a.txt").read_text() == "old"
    assert list(old.parent.iterdir()) == [old]


def test_the_cause_is_told_not_the_temporary_place(old: Path) -> None:
    with pytest.raises(CheckpointError, match=r"can't be written \(disk full\)") as caught, replacing_folder(old):
        raise CheckpointError(f"{old}.part can't be written") from OSError("disk full")
    assert ".part" not in str(caught.value)


def test_what_is_not_an_export_is_never_replaced(old: Path) -> None:
    check_folder(old, True, {"a.txt"})
    check_folder(old.parent / "free", False, {"a.txt"})
    for place, names, force, words in (
        (old, {"a.txt"}, False, "out exists"),
        (old, {"b.txt"}, True, "out holds a.txt; only a folder with nothing but b.txt is replaced"),
        (old / "a.txt", {"a.txt"}, True, "is a file"),
        (old.parent / "none" / "out", {"a.txt"}, False, "none is no folder"),
    ):
        with pytest.raises(CheckpointError, match=words):
            check_folder(place, force, names)


def test_an_export_of_one_file_is_a_path_to_it() -> None:
    assert os.fspath(Exported({Path("a.pt2"): 48})) == "a.pt2"
    with pytest.raises(TypeError, match="the export has 2 files; a path is needed"):
        os.fspath(Exported({Path("a.pt2"): 48, Path("b.pt2"): 32}))


def test_the_text_names_each_file_between_its_reports() -> None:
    one, other = Path("a-48.onnx"), Path("a-32.onnx")
    verified = Verification(1e-4, {"48": Agreement(0.0, 6, 6, 6)})
    folded = FoldReport(32, {"bn1": "conv1"}, {}, 1e-7)
    text = str(Exported({one: 48, other: 32}, {other: folded}, {one: verified}, Path("a.weights")))
    files = f"wrote a-48.onnx (48 pixels)\nwrote a-32.onnx (32 pixels)\n{folded}"
    assert text == f"{verified}\n{files}\nwrote a.weights, which these files read"


@pytest.mark.parametrize(
    ("resolution", "expected"), [(64, 0.7), (48, 0.8), (32, 0.9), (44, 0.825), (16, 0.9), (99, 0.7)]
)
def test_the_facts_are_those_of_the_resolution(resolution: int, expected: float) -> None:
    net = rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=2), (64, 48, 32))
    preprocessing = Preprocessing(
        mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), interpolation="bicubic", crop_pct=(0.7, 0.8, 0.9)
    )
    net.source = replace(net.source, preprocessing=preprocessing, class_names=("a", "b"))
    facts = {
        **{"architecture": "test_efficientnet", "num_classes": 2, "resolution": resolution, "interpolation": "bicubic"},
        **{
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.3, 0.4],
            "crop_pct": pytest.approx(expected, abs=1e-12),
            "class_names": ["a", "b"],
        },
    }
    assert json.loads(json.dumps(image_facts(net, resolution))) == facts
