"""A run: where it starts, what it reaches against finetune and evaluate by hand, what is not done twice."""

import csv
import json
import signal
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from rsconvert.checkpoint import load, subset
from rsconvert.errors import CheckpointError
from rsconvert.evaluation import evaluate
from rsconvert.settings import FinetuneConfig
from rsconvert.study.comparison import runs
from rsconvert.study.comparison.plan import Plan, PlannedRun, plan_comparison
from rsconvert.study.comparison.runs import compare, complete, machine_facts, starting_network
from rsconvert.surgery import SwitchableModel
from rsconvert.training import finetune

SIDES = (32, 24, 20, 16)


@pytest.fixture
def planned(
    net: SwitchableModel, photos: str, tmp_path: Path, settings: Callable[..., FinetuneConfig]
) -> Callable[..., Plan]:
    def plan(*methods: str, where: str = "out", resolutions: tuple[int, ...] = SIDES, **common: Any) -> Plan:
        choice: dict[str, Any] = {"methods": methods, "seeds": (7,), "resolutions": resolutions}
        return plan_comparison(net, photos, tmp_path / where, settings(epochs=2, **common), **choice)

    return plan


def start(plan: Plan, place: int = 0) -> PlannedRun:
    plan.write_settings()
    return plan.runs[place]


def top1(run: PlannedRun) -> dict[str, float]:
    return {r: row["top1"] for r, row in run.read_result()["resolutions"].items()}


# Where it starts


def test_every_network_starts_with_the_weights_of_the_one_compared(planned: Callable[..., Plan]) -> None:
    plan = planned("inets", "rsnet", "shared-bn")
    x = torch.rand(2, 3, 24, 24)
    wanted = plan.net.eval().at(24)(x)
    for run in plan.runs:
        net = starting_network(plan.net, run).eval()
        assert net.resolutions == run.resolutions
        assert torch.equal(net(x), wanted)
        assert not {t.data_ptr() for t in net.state_dict().values()} & {
            t.data_ptr() for t in plan.net.state_dict().values()
        }


def test_shared_bn_has_one_set_and_the_source_of_the_network(planned: Callable[..., Plan]) -> None:
    plan = planned("shared-bn")
    net = starting_network(plan.net, plan.runs[0])
    assert not any(".at." in name for name in net.state_dict())
    assert (net.private, net.resolutions, net.source) == (False, (32, 24, 16), plan.net.source)


# What it reaches


@pytest.mark.parametrize(
    ("method", "place", "kept", "lr", "distill"),
    [("rsnet", 0, (32, 24, 16), 0.1, "full"), ("inets", 1, (24,), 0.3, "none")],
)
def test_a_run_is_finetune_then_evaluate(
    planned: Callable[..., Plan],
    settings: Callable[..., FinetuneConfig],
    photos: str,
    tmp_path: Path,
    method: str,
    place: int,
    kept: tuple[int, ...],
    lr: float,
    distill: str,
) -> None:
    plan = planned(method, lr=0.3)
    run = start(plan, place)
    complete(plan, run)
    net = subset(plan.net, kept)
    finetune(net, photos, config=settings(epochs=2, lr=lr, seed=7, distill=distill))
    wanted = {str(r): row.top1 for r, row in evaluate(net, photos, SIDES, workers=0).resolutions.items()}
    assert top1(run) == pytest.approx(wanted)
    written = load_file(run.folder / "last.safetensors")
    assert all(torch.allclose(tensor, net.state_dict()[name]) for name, tensor in written.items())


def test_the_moving_average_is_what_is_measured(planned: Callable[..., Plan], photos: str) -> None:
    plan = planned("parallel", ema_decay=0.99, lr=0.9)
    run = start(plan)
    complete(plan, run)
    averaged = load(run.folder / "last.safetensors", plan.net.extract(32))
    found = evaluate(averaged, photos, SIDES, workers=0)
    assert top1(run) == {str(r): row.top1 for r, row in found.resolutions.items()}


def test_a_result_tells_time_images_and_machine(planned: Callable[..., Plan]) -> None:
    plan = planned("rsnet")
    run = start(plan)
    complete(plan, run)
    result = run.read_result()
    # Three steps of four images in each of two epochs, 9 images to test.
    assert (result["images"], result["count"], result["precision"]) == (24, 9, "float32")
    assert result["seconds"] > 0
    assert result["machine"]["torch"] == torch.__version__.partition("+")[0]
    assert list(result["resolutions"]) == [str(r) for r in SIDES]
    assert not (run.folder / "state").exists()


# What is not done twice


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("not again")


def test_a_finished_run_is_read(planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("rsnet")
    run = start(plan)
    complete(plan, run)
    before = {file.name: file.read_bytes() for file in run.folder.iterdir()}
    monkeypatch.setattr(runs, "finetune", refuse)
    monkeypatch.setattr(runs, "predict", refuse)
    complete(plan, run)
    assert {file.name: file.read_bytes() for file in run.folder.iterdir()} == before


def test_which_images_are_right_is_kept_and_measured_again_where_it_is_lost(planned: Callable[..., Plan]) -> None:
    run = start(plan := planned("rsnet"))
    complete(plan, run)
    hits = run.read_hits()
    assert {r: 100 * float(right.double().mean()) for r, right in hits.items()} == pytest.approx(top1(run))
    run.hits.unlink()
    complete(plan, run)
    assert all(torch.equal(right, hits[r]) for r, right in run.read_hits().items())


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_a_damaged_result_is_named(planned: Callable[..., Plan], text: str) -> None:
    run = start(planned("rsnet"))
    run.folder.mkdir(parents=True)
    run.result.write_text(text)
    with pytest.raises(CheckpointError, match=r"result\.json can't be read"):
        run.read_result()


def test_further_resolutions_are_measured_without_training(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = planned("rsnet", where="whole")
    complete(whole, start(whole))
    part = planned("rsnet", where="part", resolutions=(32, 16))
    complete(part, start(part))
    assert list(top1(part.runs[0])) == ["32", "16"]
    monkeypatch.setattr(runs, "finetune", refuse)
    more = planned("rsnet", where="part")
    complete(more, more.runs[0])
    assert top1(more.runs[0]) == top1(whole.runs[0])


@pytest.mark.parametrize("forward", [1, 4], ids=["in the first epoch", "in the second epoch"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, forward: int
) -> None:
    whole, cut = planned("rsnet", where="whole"), planned("rsnet", where="cut")
    complete(whole, start(whole))
    run = start(cut)
    seen: list[int] = []

    def press(path: nn.Module, _: Any) -> None:
        if path.training:
            seen.append(1)
            if len(seen) == forward:
                signal.raise_signal(signal.SIGINT)

    def pressed(net: SwitchableModel, run: PlannedRun) -> SwitchableModel:
        own = starting_network(net, run)
        own.at(16).register_forward_pre_hook(press)
        return own

    with monkeypatch.context() as patched:
        patched.setattr(runs, "starting_network", pressed)
        with pytest.raises(KeyboardInterrupt, match="its state after epoch"):
            complete(cut, run)
    assert run.status == "begun"
    complete(cut, run)
    assert run.status == "done"
    assert top1(run) == top1(whole.runs[0])
    files = [load_file(plan.runs[0].folder / "last.safetensors") for plan in (whole, cut)]
    assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())


def test_a_run_killed_before_its_test_is_tested_alone(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned("rsnet")
    run = start(plan)
    with monkeypatch.context() as patched:
        patched.setattr(runs, "predict", refuse)
        with pytest.raises(AssertionError):
            complete(plan, run)
    before = (run.folder / "last.safetensors").read_bytes()
    assert run.status == "begun"
    complete(plan, run)
    assert (run.folder / "last.safetensors").read_bytes() == before
    assert json.loads(run.result.read_text())["count"] == 9


# All of them


@pytest.fixture
def plan(net: SwitchableModel, photos: str, tmp_path: Path, settings: Any) -> Plan:
    choice: dict[str, Any] = {"methods": ["inets", "parallel"], "seeds": (0, 1), "resolutions": (32, 20, 16)}
    return plan_comparison(net, photos, tmp_path / "out", settings(), **choice)


def test_a_comparison_trains_all_and_reports(plan: Plan) -> None:
    lines: list[str] = []
    epochs: list[Any] = []
    found = compare(plan, log=lines.append, on_epoch=epochs.append)
    assert len(epochs) == len(plan.runs) == 8
    assert lines[0] == "run 1/8, inets-32/seed-0: to do"
    assert [line.title for line in found.lines] == ["I-Nets", "I-32", "parallel"]
    assert found.table() in (plan.folder / "report.md").read_text()
    again: list[str] = []
    assert compare(plan, log=again.append, on_epoch=epochs.append).table() == found.table()
    assert {line.rpartition(" ")[2] for line in again} == {"done"}
    assert len(epochs) == 8


def test_an_interruption_leaves_the_report_of_whole_seeds(plan: Plan) -> None:
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if len(lines) == 7:  # two runs of the second seed are over
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(plan, log=log)
    with open(plan.folder / "accuracy.csv", newline="") as file:
        assert {row["seed"] for row in csv.DictReader(file)} == {"0"}
    assert [run.status for run in plan.runs] == ["done"] * 6 + ["to do"] * 2
    found = compare(plan)
    assert all(set(by_seed) == {0, 1} for line in found.lines for by_seed in line.score.values())


def test_the_processor_and_the_versions_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "processor\t: 0\nmodel name\t: Some Chip 9\ncores: 2\n")
    facts = machine_facts("cpu")
    assert (facts["device"], facts["name"], facts["threads"]) == ("cpu", "Some Chip 9", 1)
    assert {name: facts[name] for name in ("torch", "timm")} == {name: version(name) for name in ("torch", "timm")}
