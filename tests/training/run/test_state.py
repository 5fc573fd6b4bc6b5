"""State: what is collected comes back, in the layout that the optimizer reads; which run it fits."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rsconvert.data import Samples
from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.evaluation import Processes
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.run.state import check_facts, check_same_run, collect_state, data_identity, restore_state
from rsconvert.training.run.summary import Progress
from rsconvert.training.step.stepper import Stepper

MakeNet = Callable[..., SwitchableModel]
ALONE = Processes(0, 1, torch.device("cpu"))


def stepper_of(net: SwitchableModel, **settings: Any) -> Stepper:
    return Stepper(net, FinetuneConfig(lr=0.1, **settings), 10, torch.float32, ALONE)


def stepped(stepper: Stepper, steps: int) -> SwitchableModel:
    for _ in range(steps):
        views = [torch.randn(4, 3, r, r) for r in stepper.net.resolutions]
        stepper.add(views, torch.tensor([0, 2, 1, 2]), last=True)
        stepper.step(7)
    return stepper.net


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw"])
def test_what_is_collected_comes_back(make_net: MakeNet, name: Any) -> None:
    def make() -> Stepper:
        net = make_net(dropout=0.5).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return stepper_of(net, optimizer=name)

    stepper, other = make(), make()
    with torch.random.fork_rng(devices=[]):
        stepped(stepper, 2)
        state = collect_state(stepper)
        wanted = copy.deepcopy(stepped(stepper, 2).state_dict())
        torch.manual_seed(77)
        restore_state({key: value.contiguous() for key, value in state.items()}, other)
        found = stepped(other, 2).state_dict()
    assert not stepper.net.get_parameter("conv1.weight").is_contiguous()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_a_state_is_a_copy(net: SwitchableModel) -> None:
    stepper = stepper_of(net, ema_decay=0.5)
    stepped(stepper, 1)
    state = collect_state(stepper)
    before = {key: value.clone() for key, value in state.items()}
    stepped(stepper, 1)
    assert all(torch.equal(state[key], value) for key, value in before.items())
    assert {key.split(".")[0] for key in state} == {"net", "average", "optimizer", "random"}


def test_a_rank_takes_its_own_statistics_and_generator(net: SwitchableModel) -> None:
    stepper = stepper_of(net)
    with torch.random.fork_rng(devices=[]):
        state = collect_state(stepper)
        torch.manual_seed(5)
        state |= {"random.1.cpu": torch.get_rng_state(), "buffers.1.net.bn1.running_mean": torch.full((6,), 3.0)}
        stepper.processes = Processes(1, 2, torch.device("cpu"))
        restore_state(state, stepper)
        assert torch.equal(torch.get_rng_state(), state["random.1.cpu"])
        assert torch.equal(net.get_buffer("bn1.running_mean"), torch.full((6,), 3.0))
        assert torch.equal(net.get_buffer("bn2.running_mean"), torch.zeros(6))
        stepper.processes = Processes(2, 3, torch.device("cpu"))
        with pytest.raises(CheckpointError, match="a run with fewer processes"):
            restore_state(state, stepper)


def test_the_state_of_another_network_is_refused(make_net: MakeNet) -> None:
    state, other = collect_state(stepper_of(make_net())), stepper_of(make_net((32, 24)))
    with torch.random.fork_rng(devices=[]), pytest.raises(CheckpointError, match="the state does not fit"):
        restore_state(state, other)


SAVED = json.loads(json.dumps({**asdict(FinetuneConfig()), "processes": 1, "images": 30}))


@pytest.mark.parametrize("changes", [{}, {"workers": 7}, {"save_minutes": 1.0}, {"keep_states": 5}, {"log_dir": "x"}])
def test_what_changes_no_number_is_free(changes: dict[str, Any]) -> None:
    check_same_run(SAVED, FinetuneConfig(**changes), {"processes": 1, "images": 30}, force=False)


def test_what_a_file_says_stays_on_one_line() -> None:
    saved = {**SAVED, "recipe": "none", "epochs": "a\nb\x1b[2J"}
    with pytest.raises(ConfigError, match=r"epochs was a\\nb\\x1b\[2J and is \d+"):
        check_same_run(saved, FinetuneConfig(), {"processes": 1, "images": 30}, force=False)


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


def test_other_images_of_the_same_number_are_another_run(make_net: MakeNet, tmp_path: Path) -> None:
    def identity(folder: Path, content: bytes = b"a", name: str = "1.png") -> Any:
        (folder / "train").mkdir(parents=True)
        (folder / "train" / name).write_bytes(content)
        paths = [str(folder / "train" / name)]
        return data_identity(
            make_net(), (Samples([(b"", 0)], str(folder), ("a",), paths), Samples([], "val", ("a",))), None
        )

    first = identity(tmp_path / "first")
    assert identity(tmp_path / "moved") == first
    for other in (
        identity(tmp_path / "x", b"b"),
        identity(tmp_path / "y", b"aa"),
        identity(tmp_path / "z", name="2.png"),
    ):
        assert other["data"] == first["data"]
        with pytest.raises(ConfigError, match=r"image_files was .* Give the images that the run started with"):
            check_same_run({**SAVED, **first}, FinetuneConfig(), {"processes": 1, "images": 30, **other}, force=False)
    earlier = {key: value for key, value in first.items() if key != "image_files"}
    check_same_run({**SAVED, **earlier}, FinetuneConfig(), {"processes": 1, "images": 30, **first}, force=False)


def facts_of(**changes: Any) -> dict[str, Any]:
    return {"progress": asdict(Progress()), "settings": {"steps_per_epoch": 3}, "scaler": {}, **changes}


@pytest.mark.parametrize(
    "facts",
    [[], {}, facts_of(progress=[]), facts_of(settings=None), facts_of(settings={}), facts_of(scaler=1)],
)
def test_facts_of_another_kind_are_refused(facts: Any) -> None:
    check_facts(facts_of())
    with pytest.raises(CheckpointError, match="lacks facts of its run"):
        check_facts(facts)


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 9, "rows": [{"epoch": 1}] * 9}, {"epoch": 1}, {"epoch": "1"}, {"epoch": True}, {"batches": -1},
        {"sums": []}, {"sums": [0.0, 0.0, 0.0, "x"]}, {"rows": [[]], "epoch": 1}, {"best": "high"}, {"saves": None},
        {"seconds": None}, {"more": 1},
    ],
)  # fmt: skip
def test_progress_that_no_run_has_is_refused(changes: dict[str, Any]) -> None:
    assert Progress.of(asdict(Progress()), 5) == Progress()
    with pytest.raises(CheckpointError, match="what no such run has"):
        Progress.of({**asdict(Progress()), **changes}, 5)
