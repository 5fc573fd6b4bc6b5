"""Fits: what each changes in the network that it starts from, against the same by hand, and what it leaves alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rsconvert.calibration import calibrate
from rsconvert.checkpoint import load, subset
from rsconvert.data import normalize
from rsconvert.errors import ConfigError
from rsconvert.evaluation import evaluate, validation_loader
from rsconvert.settings import FinetuneConfig
from rsconvert.study.comparison import runs
from rsconvert.study.comparison.findings import tabulate
from rsconvert.study.comparison.fits import last_batchnorm
from rsconvert.study.comparison.plan import Plan, PlannedRun, plan_comparison
from rsconvert.study.comparison.runs import compare, complete
from rsconvert.surgery import SwitchableModel
from rsconvert.training import extract_features, fit_classifier

Plans = Callable[..., Plan]


@pytest.fixture
def planned(net: SwitchableModel, photos: str, tmp_path: Path, settings: Callable[..., FinetuneConfig]) -> Plans:
    def plan(*methods: str, resolutions: tuple[int, ...] = (32, 24, 20, 16)) -> Plan:
        choice: dict[str, Any] = {"methods": methods, "seeds": (7,), "resolutions": resolutions}
        made = plan_comparison(net, photos, tmp_path / "out", settings(amp="off"), **choice)
        made.write_settings()
        return made

    return plan


def made(plan: Plan, place: int = 0) -> SwitchableModel:
    """The network that a run leaves in its folder."""
    complete(plan, plan.runs[place])
    return load(plan.runs[place].folder / "last.safetensors", plan.net.extract(32))


def differing(net: SwitchableModel, other: SwitchableModel) -> set[str]:
    theirs = other.state_dict()
    assert net.state_dict().keys() == theirs.keys()
    return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, theirs[name])}


def top1(run: PlannedRun) -> dict[str, float]:
    return {r: row["top1"] for r, row in run.read_result()["resolutions"].items()}


def test_the_source_is_the_network_as_it_is(planned: Plans, net: SwitchableModel) -> None:
    plan = planned("source")
    assert differing(made(plan), net) == set()
    own = evaluate(net, plan.samples[1], (32, 24, 20, 16), workers=0).resolutions
    assert top1(plan.runs[0]) == {str(r): row.top1 for r, row in own.items()}
    assert plan.runs[0].read_result()["seconds"] >= 0


def test_calibrated_has_the_statistics_of_calibrate(planned: Plans, net: SwitchableModel) -> None:
    plan = planned("calibrated")
    found, wanted = made(plan), subset(net, net.resolutions)
    calibrate(wanted, plan.samples[0], workers=0, seed=7)
    assert differing(found, wanted) == set()
    assert all(name.rpartition(".")[2] in ("running_mean", "running_var") for name in differing(found, net))


def test_heads_are_classifiers_alone_each_at_its_size(planned: Plans, net: SwitchableModel) -> None:
    plan = planned("heads")
    assert [run.name for run in plan.runs] == ["heads-32/seed-7", "heads-24/seed-7", "heads-16/seed-7"]
    wanted = subset(net, (16,))
    assert differing(made(plan, 2), wanted) == {"fc.weight", "fc.bias"}
    fit_classifier(wanted, extract_features(wanted, plan.samples[0], workers=0), seed=7)
    assert differing(made(plan, 2), wanted) == set()
    assert list(top1(plan.runs[2])) == ["16"]
    (line,) = tabulate(plan).lines
    assert [list(line.score[r]) for r in (32, 24, 16)] == [[], [], [7]]


def test_fixres_moves_the_last_statistics_and_the_classifier_of_the_native_i_net(
    planned: Plans, net: SwitchableModel
) -> None:
    plan = planned("fixres", "inets")
    trained = made(plan)
    assert plan.runs[0].name == "inets-32/seed-7"
    found = made(plan, 5)
    assert (plan.runs[5].name, found.resolutions) == ("fixres-16/seed-7", (16,))
    assert differing(found, trained) == {"fc.weight", "fc.bias", "bn2.running_mean", "bn2.running_var"}
    loader = validation_loader(net, plan.samples[0], (16,), batch_size=12, workers=0)
    ((views, _),) = loader
    inputs: list[Tensor] = []
    path = trained.at(32).eval()
    path.bn2.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    path(normalize(views[0], net.source.preprocessing))
    torch.testing.assert_close(found.at(16).bn2.running_mean, inputs[0].mean((0, 2, 3)))
    torch.testing.assert_close(found.at(16).bn2.running_var, inputs[0].var((0, 2, 3), correction=0))
    assert found.source.training == trained.source.training


def test_a_comparison_reads_finished_fits(planned: Plans, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("source", "calibrated", "heads", resolutions=(32, 16))
    assert [run.name for run in plan.runs] == [f"{n}/seed-7" for n in ("source", "calibrated", "heads-32", "heads-16")]
    assert str(plan).splitlines()[0].startswith("0 runs, each of 1 epochs")
    assert "and 4 without epochs, tested at 2 sizes" in str(plan)
    found = compare(plan)
    assert (plan.folder / "report.md").is_file()
    assert [line.name for line in found.lines] == ["source", "calibrated", "heads"]
    assert [line.trained for line in found.lines] == [(32,), (32, 24, 16), (32, 24, 16)]
    monkeypatch.setattr(runs, "FITS", {})
    assert compare(plan).to_dict() == found.to_dict()


def test_the_source_needs_a_trained_classifier(planned: Plans, net: SwitchableModel) -> None:
    net.source.__dict__["new_classifier"] = ("fc.weight",)
    planned("heads")
    for name in ("source", "calibrated"):
        with pytest.raises(ConfigError, match=f"{name} takes the classifier as it is, which is new; heads"):
            planned(name)


class Crossed(nn.Module):
    """Its second BatchNorm runs first."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn1(self.bn2(x)).mean((2, 3))


def test_the_last_batchnorm_is_the_one_that_runs_last() -> None:
    model = Crossed()
    assert last_batchnorm(model, 8) == "bn1"
    assert model.training
    assert not model.bn1._forward_hooks
