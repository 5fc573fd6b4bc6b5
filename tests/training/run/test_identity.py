"""What makes a run the same run, and how differences are told."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from rsconvert.data import Samples
from rsconvert.errors import ConfigError
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.run.identity import check_same_run, data_identity

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
    with pytest.raises(ConfigError, match=r"class_weights was None and is \(1\.0, .{50,60}…;"):
        check_same_run(SAVED, FinetuneConfig(class_weights=(1.0,) * 99), {"processes": 1, "images": 30}, force=False)


def test_the_images_and_how_they_are_seen_are_part_of_it(make_net: Callable[..., SwitchableModel]) -> None:
    def identity(
        net: SwitchableModel, count: int = 3, classes: tuple[str, ...] = ("a", "b"), outputs: Any = None
    ) -> Any:
        return data_identity(net, (Samples([(b"", 0)] * count, "train", classes), Samples([], "val", classes)), outputs)

    net, other = make_net(), make_net()
    first = identity(net)
    assert first["data"].startswith("3 train and 0 val images, 2 classes (")
    assert identity(make_net()) == first
    other.source = replace(other.source, preprocessing=replace(other.source.preprocessing, mean=(0.5, 0.5, 0.5)))
    different = [identity(net, 4), identity(net, 3, ("b", "a")), identity(net, 3, ("a", "b"), (1, 0)), identity(other)]
    assert all(found != first for found in different)


@pytest.mark.parametrize(("name", "remedy"), [("data", "images that"), ("starting_network", "checkpoint that")])
def test_the_remedy_fits_what_differs(name: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} was old and is new; .* Give the {remedy} the run started"):
        check_same_run(
            {**SAVED, name: "old"}, FinetuneConfig(), {"processes": 1, "images": 30, name: "new"}, force=False
        )
