"""The row of an epoch and the note in the file: means, shares, what is kept."""

from dataclasses import replace

import pytest

from rsconvert.evaluation import Accuracy, Evaluation
from rsconvert.surgery import SwitchableModel
from rsconvert.training.config import FinetuneConfig
from rsconvert.training.run.progress import Progress
from rsconvert.training.run.record import epoch_row, note_training


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
    note_training(net, FinetuneConfig(epochs=7, seed=3), 0.5, 2, ("a", "b", "c"))
    assert (net.source.new_classifier, net.source.class_names) == ((), ("a", "b", "c"))
    training = dict(net.source.training or {})
    assert (training["epochs"], training["epoch"], training["lr"], training["seed"]) == (7, 2, 0.5, 3)
