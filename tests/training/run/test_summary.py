"""The summary: what is counted, which epoch is best, the row of an epoch, the note in the file, the table read back."""

import importlib.util
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.evaluation import Accuracy, Evaluation
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.run.summary import (
    Board,
    Progress,
    epoch_line,
    epoch_row,
    note_training,
    read_summary,
    write_summary,
)


def test_the_first_of_equals_is_the_best() -> None:
    done = Progress()
    assert not done.started
    done.add([1.0, 0.5, 0.25, 0.25])
    done.add([1.0, 0.0, 0.0, 0.5])
    assert (done.started, done.batches, done.sums) == (True, 2, [2.0, 0.5, 0.25, 0.75])
    assert [done.next_epoch({"epoch": i}, score) for i, score in enumerate((-1.0, 80.0, 80.0, 70.0))] == [
        *(True, True, False, False)
    ]
    assert done.best_epoch == 2
    assert (done.epoch, done.batches, done.sums, done.best, done.started) == (4, 0, [0.0] * 4, 80.0, True)
    assert Progress(**json.loads(json.dumps(asdict(done)))) == done


def test_scores_that_round_to_one_figure_are_told_apart() -> None:
    done = Progress()
    for epoch, score in enumerate((33.33331, 33.33334, 33.33332)):
        done.next_epoch({"epoch": epoch + 1, "top1_32": round(score, 3)}, score)
    assert done.best_epoch == 2


def test_a_row_holds_means_scores_accuracies_and_speed(net: SwitchableModel) -> None:
    done = Progress(epoch=2, batches=4, sums=[8.0, 4.0, 2.0, 2.0], seconds=5.0, waited=0.5)
    accuracies = {r: Accuracy(60.0 + r, 99.0) for r in net.resolutions}
    row = epoch_row(done, net, Evaluation(7, accuracies, Accuracy(95.5, 100.0)), lr=0.25, images=100)
    assert [row[key] for key in ("epoch", "loss", "classification", "ensemble", "distillation")] == [
        3,
        2.0,
        1.0,
        0.5,
        0.5,
    ]
    assert (row["lr"], row["images_per_second"], row["percent_waiting"]) == (0.25, 20.0, 10.0)
    assert [row[f"score_{r}"] for r in net.resolutions] == pytest.approx([1 / 3] * 3, abs=1e-4)
    assert (row["top1_24"], row["top5_24"], row["top1_ensemble"]) == (84.0, 99.0, 95.5)
    assert "top1_ensemble" not in epoch_row(done, net, Evaluation(7, accuracies, None), lr=0.25, images=100)


def test_a_note_tells_the_training_and_that_the_classifier_is_trained(net: SwitchableModel) -> None:
    net.source = replace(net.source, new_classifier=("fc.weight",))
    note_training(net, FinetuneConfig(epochs=7, lr=0.5, seed=3, split=0.8), 2, ("a", "b", "c"))
    assert (net.source.new_classifier, net.source.class_names) == ((), ("a", "b", "c"))
    training = dict(net.source.training or {})
    assert (training["epochs"], training["epoch"], training["lr"], training["seed"]) == (7, 2, 0.5, 3)
    assert training["split"] == 0.8
    assert "bits" not in training


def test_rows_are_read_back_as_numbers_without_empty_cells(tmp_path: Path) -> None:
    assert read_summary(tmp_path) is None
    rows = [{"epoch": 1, "loss": 2.5, "top1_64": None}, {"epoch": 2, "loss": 1 / 3, "top1_64": 60.1}]
    write_summary(tmp_path, rows)
    assert read_summary(str(tmp_path)) == [{"epoch": 1.0, "loss": 2.5}, rows[1]]
    (tmp_path / "summary.csv").write_text("epoch,loss\n")
    assert read_summary(tmp_path) == []


@pytest.mark.parametrize("content", [b"epoch,loss\n1,x\n", b"epoch,loss\n1,2,3\n", b"epoch\n\xff\n", b"epoch\n1e308\n"])
def test_a_damaged_table_is_reported_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "summary.csv").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"summary\.csv is damaged \(.+\); the table that finetune writes"
    ) as info:
        read_summary(tmp_path)
    assert "\n" not in str(info.value)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'rsconvert\[tensorboard\]'"):
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


def test_a_line_for_people_holds_means_over_the_views() -> None:
    parts = {"loss": 6.0, "classification": 3.0, "ensemble": 1.5, "distillation": 0.0}
    row = {"epoch": 2, **parts, "score_32": 0.5, "top1_32": 51.26, "top5_32": 90.0, "images_per_second": 120.5}
    line = epoch_line(row, 4, 3)
    assert line == (
        "epoch 2/4  loss per view 2.000 (cross entropy 1.000, ensemble 0.500)  top-1 (%) 32: 51.3  120.5 images/s"
    )
    assert "mIoU (%) 32: 40.0" in epoch_line({**parts, "epoch": 1, "miou_32": 40.0, "images_per_second": 1}, 1, 1)
