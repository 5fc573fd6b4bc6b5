"""Progress: what is counted, which epoch is best."""

import json
from dataclasses import asdict

from rsconvert.training.run.progress import Progress


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
