"""Progress: what is counted, which epoch is best."""

import json
from dataclasses import asdict

from rsconvert.training.progress import Progress


def test_the_first_of_equals_is_the_best() -> None:
    done = Progress()
    assert not done.started
    done.add([1.0, 0.5, 0.25, 0.25])
    done.add([1.0, 0.0, 0.0, 0.5])
    assert (done.started, done.batches, done.sums) == (True, 2, [2.0, 0.5, 0.25, 0.75])
    assert [done.next_epoch({"epoch": i}, score) for i, score in enumerate((-1.0, 80.0, 80.0, 70.0))] == [
        *(True, True, False, False)
    ]
    assert (done.epoch, done.batches, done.sums, done.best, done.started) == (4, 0, [0.0] * 4, 80.0, True)
    assert Progress(**json.loads(json.dumps(asdict(done)))) == done
