"""Plan: what each method's name stands for, which runs there are, in which order, at which rates; what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rsconvert.data import open_split
from rsconvert.errors import CheckpointError, ConfigError, DataError, ResolutionError
from rsconvert.settings import FinetuneConfig
from rsconvert.study.comparison.plan import Plan, plan_comparison
from rsconvert.surgery import SwitchableModel, make_switchable

Settings = Callable[..., FinetuneConfig]
SIDES = (32, 24, 16)


@pytest.fixture
def planned(net: SwitchableModel, photos: str, tmp_path: Path, settings: Settings) -> Callable[..., Plan]:
    def plan(output: Path = tmp_path / "out", common: dict[str, Any] | None = None, **choice: Any) -> Plan:
        return plan_comparison(net, photos, output, settings(**(common or {})), **choice)

    return plan


def names(plan: Plan) -> list[str]:
    assert all(run.folder == plan.folder / run.name for run in plan.runs)
    return [run.name for run in plan.runs]


def test_all_methods_of_a_seed_come_before_the_next_seed(planned: Callable[..., Plan]) -> None:
    plan = planned(seeds=(3, 1), subsets=[(32, 16)])
    one = ["inets-32", "inets-24", "inets-16", "parallel", "rsnet", "parallel-32+16"]
    assert names(plan) == [f"{name}/seed-{seed}" for seed in (3, 1) for name in one]
    assert [run.config.seed for run in plan.runs] == [3] * 6 + [1] * 6
    assert [run.config.distill for run in plan.runs[:6]] == ["none"] * 4 + ["full", "none"]
    assert [run.resolutions for run in plan.runs[2:6]] == [(16,), (32, 24, 16), (32, 24, 16), (32, 16)]
    assert not plan.folder.exists()


def test_the_rate_of_one_resolution_is_divided_by_their_number(planned: Callable[..., Plan]) -> None:
    choice: dict[str, Any] = {"methods": ["inets", "rsnet"], "subsets": [(32, 16)], "seeds": (0,)}
    assert [run.config.lr for run in planned(common={"lr": 0.6}, **choice).runs][2:] == pytest.approx([0.6, 0.2, 0.3])
    assert {run.config.lr for run in planned(common={"lr": 0.6}, same_lr=True, **choice).runs} == {0.6}
    # Without a rate it is that of finetune, for 4 images and S views.
    default = planned(**choice)
    assert [run.config.lr for run in default.runs] == pytest.approx(
        [0.005 * 4 / 32 / len(run.resolutions) for run in default.runs]
    )


def test_runs_differ_in_what_their_method_says_alone(planned: Callable[..., Plan]) -> None:
    plan = planned(methods=["rsnet", "per-view"], seeds=(0,), crop_area=(0.08, 1.0), common={"log_dir": "logs"})
    first, second, third, _ = (run.config for run in plan.runs)
    assert second == replace(first, crop="per-view", log_dir=second.log_dir)
    assert third == replace(first, crop_area=(0.08, 1.0), log_dir=third.log_dir)
    assert len({run.config.log_dir for run in plan.runs}) == 4


def test_the_status_of_a_run_is_read_from_its_folder(planned: Callable[..., Plan]) -> None:
    plan = planned(methods=["rsnet", "parallel", "vanilla"], seeds=(0,))
    done, begun, _ = plan.runs
    (begun.folder / "state").mkdir(parents=True)
    done.folder.mkdir(parents=True)
    done.result.write_text("{}")
    assert [run.status for run in plan.runs] == ["done", "begun", "to do"]
    lines = str(plan).splitlines()
    assert lines[0] == "3 runs, each of 1 epochs of 3 steps of 4 images, tested at 3 sizes"
    assert lines[1].split() == ["run", "views", "learning", "rate", "status"]
    assert lines[2].split() == ["rsnet/seed-0", "3", "0.0002083", "done"]
    assert [run["status"] for run in plan.to_dict()["runs"]] == ["done", "begun", "to do"]


def test_the_same_comparison_may_grow(planned: Callable[..., Plan]) -> None:
    planned(methods=["rsnet"], seeds=(0,)).write_settings()
    grown = planned(methods=["rsnet", "inets"], seeds=(0, 1), resolutions=(32, 20), common={"workers": 3})
    assert grown.resolutions == (32, 20)
    assert json.loads((grown.folder / "comparison.json").read_text())["epochs"] == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"common": {"epochs": 2}}, "holds another comparison: epochs was 1 and is 2; one budget"),
        ({"common": {"batch_size": 6}}, "batch_size was 4 and is 6, lr was "),
        ({"same_lr": True}, "same_lr was False and is True"),
    ],
)
def test_another_comparison_in_the_folder_is_refused(
    planned: Callable[..., Plan], change: dict[str, Any], told: str
) -> None:
    planned().write_settings()
    with pytest.raises(ConfigError, match=told):
        planned(**change)


def test_a_settings_file_of_several_lines_is_told_in_one(planned: Callable[..., Plan]) -> None:
    plan = planned()
    plan.write_settings()
    (plan.folder / "comparison.json").write_text('{"epochs": "a\\nb"}')
    with pytest.raises(ConfigError, match=r"epochs was a\\nb and is 1"):
        planned()


def test_another_network_or_other_images_are_another_comparison(
    planned: Callable[..., Plan], net: SwitchableModel, photos: str, settings: Settings
) -> None:
    plan = planned()
    plan.write_settings()
    net.alpha.data[0] = 2.0
    with pytest.raises(ConfigError, match="starting_network was"):
        planned()
    net.alpha.data[0] = 1.0
    train, val = plan.samples
    with pytest.raises(ConfigError, match="data was 12 train and 9 val images"):
        plan_comparison(net, (train, val.subset([0, 4, 8])), plan.folder, settings())


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"seeds": (1, 1)}, "seeds is 1,1; one or more different ones are needed"),
        ({"seeds": ()}, "seeds is empty"),
        ({"seeds": ("a",)}, "seed is 'a'; a whole number"),
        ({"common": {"distill": "vanilla"}}, "distill is vanilla, which a comparison chooses for each run"),
        ({"common": {"seed": 4}}, "seed is 4, which"),
        ({"common": {"views": 4}}, "views is 4, and the number of resolutions 3"),
        ({"common": {"view_sizes": (32, 32, 32)}}, "view_sizes is "),
        (
            {"common": {"crop": "per-view"}, "methods": ["rsnet", "per-view"]},
            "per-view trains as rsnet does with these settings",
        ),
        ({"crop_area": (0.35, 1.0)}, "inets-crop-0.35-1 trains as inets does"),
        ({"common": {"labels": "none"}}, "distill is none, in which only the views teach"),
    ],
)
def test_what_has_no_effect_or_no_sense_is_refused(
    planned: Callable[..., Plan], choice: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        planned(**choice)


def test_resolutions_and_images_are_checked_before_anything_is_written(
    planned: Callable[..., Plan], net: SwitchableModel, tmp_path: Path, settings: Settings
) -> None:
    with pytest.raises(ResolutionError, match="32 twice"):
        planned(resolutions=(32, 32))
    with pytest.raises(DataError, match="does not exist"):
        plan_comparison(net, tmp_path / "nowhere", tmp_path / "out", settings())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(planned: Callable[..., Plan], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    for place in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(CheckpointError, match="exists and holds no comparison"):
            planned(place)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").touch()
    planned(tmp_path / "out")  # of one that was killed at its beginning
    for text in ("{", "[1]", "3"):
        (tmp_path / "out" / "comparison.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"comparison\.json can't be read"):
            planned()


def test_a_comparison_starts_from_an_untrained_network_with_private_sets(
    planned: Callable[..., Plan], net: SwitchableModel, photos: str, tmp_path: Path, settings: Settings
) -> None:
    shared = make_switchable(net.extract(32), (32, 16), private=False)
    with pytest.raises(ConfigError, match="one BN set for all"):
        plan_comparison(shared, photos, tmp_path / "out", settings())
    with pytest.raises(ConfigError, match="patience is 1; all runs of a comparison are equally long"):
        plan_comparison(net, photos, tmp_path / "out", settings(epochs=4, patience=1))
    net.source = replace(net.source, training={"epochs": 1})
    with pytest.raises(ConfigError, match="was finetuned already"):
        planned()


def test_several_processes_are_refused(planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="started 2 processes; a comparison runs in one"):
        planned()


@pytest.mark.parametrize(
    ("name", "changes", "views", "private"),
    [
        ("inets", {"distill": "none"}, 1, True),
        ("parallel", {"distill": "none"}, 3, True),
        ("rsnet", {"distill": "full"}, 3, True),
        ("shared-bn", {"distill": "none"}, 3, False),
        ("vanilla", {"distill": "vanilla"}, 3, True),
        ("top-down", {"distill": "top-down"}, 3, True),
        ("largest", {"distill": "largest"}, 3, True),
        ("per-view", {"distill": "full", "crop": "per-view"}, 3, True),
        ("one-size", {"distill": "full", "crop": "per-view", "view_sizes": (32, 32, 32)}, 3, True),
    ],
)
def test_a_name_stands_for_a_way_to_train(
    planned: Callable[..., Plan], settings: Settings, name: str, changes: dict[str, Any], views: int, private: bool
) -> None:
    run = planned(methods=[name], seeds=(0,)).runs[0]
    assert run.config == replace(settings().filled(gentle=False), lr=run.config.lr, **changes)
    assert (len(run.resolutions), run.method.private) == (views, private)
    assert run.method.trained(SIDES) == ((32,) if name == "one-size" else SIDES)


def test_views_are_drawn_for_networks_of_all_resolutions(planned: Callable[..., Plan]) -> None:
    plan = planned(methods=["inets", "rsnet", "one-size"], subsets=[(32, 16)], seeds=(0,), common={"views": "sandwich"})
    drawn = {run.name: run.config.views for run in plan.runs}
    assert {name for name, views in drawn.items() if views == "sandwich"} == {"rsnet/seed-0"}
    assert set(drawn.values()) == {"all", "sandwich"}
    assert plan.settings["views"] == "sandwich"


def test_a_plain_folder_is_divided_once_for_all_runs(net: SwitchableModel, photos: str, tmp_path: Path) -> None:
    config = FinetuneConfig(split=0.5, skip_broken=1, batch_size=2, warmup_epochs=0.0, epochs=1)
    plan = plan_comparison(net, f"{photos}/train", tmp_path / "out", config, methods=["inets", "rsnet"], seeds=(0,))
    assert [len(part) for part in plan.samples] == [12 - len(plan.samples[1]), len(open_split(f"{photos}/train", 0.5))]
    assert {(run.config.split, run.config.skip_broken) for run in plan.runs} == {(None, 0)}
