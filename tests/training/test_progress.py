"""Progress: what is counted, which epoch is best, how differing settings are told."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from rsconvert.errors import ConfigError
from rsconvert.training.config import FinetuneConfig
from rsconvert.training.progress import Progress, check_same_run


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


SAVED = json.loads(json.dumps({**asdict(FinetuneConfig()), "processes": 1, "images": 30}))


@pytest.mark.parametrize("changes", [{}, {"workers": 7}, {"save_minutes": 1.0}, {"keep_states": 5}, {"log_dir": "x"}])
def test_what_changes_no_number_is_free(changes: dict[str, Any]) -> None:
    check_same_run(SAVED, FinetuneConfig(**changes), {"processes": 1, "images": 30}, force=False)


def test_differences_are_told_and_can_be_forced() -> None:
    config, facts = FinetuneConfig(epochs=11), {"processes": 1, "images": 31}
    with pytest.raises(ConfigError, match=r"epochs was 10 and is 11, images was 30 and is 31; .*--force"):
        check_same_run(SAVED, config, facts, force=False)
    check_same_run(SAVED, config, facts, force=True)
    with pytest.raises(ConfigError, match="processes was 1 and is 2; its state fits the same processes alone"):
        check_same_run(SAVED, config, {"processes": 2, "images": 30}, force=True)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigError, match=r"class_weights was None and is \(1\.0, .{30,40}…;"):
        check_same_run(SAVED, FinetuneConfig(class_weights=(1.0,) * 99), {"processes": 1, "images": 30}, force=False)
