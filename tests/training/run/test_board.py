"""Board: the curves that TensorBoard reads back, and the package that is missing."""

import importlib.util
from pathlib import Path

import pytest

from rsconvert.errors import ConfigError
from rsconvert.training.run.board import Board


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install rsconvert\[tensorboard\]"):
        Board(str(tmp_path))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own
def test_the_curves_are_read_back(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = Board(str(tmp_path))
    board.add_step([4.0, 2.0, 1.5, 0.5], 0.25, 7)
    board.add_epoch({"epoch": 1, "top1_32": 75.0}, 8)
    board.close()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == {
        "step/total": [(7, 4.0)],
        "step/classification": [(7, 2.0)],
        "step/ensemble": [(7, 1.5)],
        "step/distillation": [(7, 0.5)],
        "step/lr": [(7, 0.25)],
        "epoch/epoch": [(8, 1.0)],
        "epoch/top1_32": [(8, 75.0)],
    }
