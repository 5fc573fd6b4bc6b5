"""Places that an export takes or refuses."""

from pathlib import Path

import pytest

from rsconvert.errors import CheckpointError
from rsconvert.export.target import check_target


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
