"""ConversionReport: the numbers of known networks."""

import json

import pytest
import timm
from torch import Tensor, nn

from rsconvert.models import create_model
from rsconvert.surgery import make_switchable


def test_resnet50_counts_what_the_paper_counts() -> None:
    report = make_switchable(create_model("resnet50"), (64, 56, 48, 40, 32)).report
    assert len(report.batchnorms) == 53
    assert report.exact == dict.fromkeys((64, 56, 48, 40, 32), True)
    assert (report.parameters_before, report.parameters) == (25_557_032, 25_769_512)
    assert {(record.found, record.calls) for record in report.batchnorms} == {("graph", 1)}
    assert str(report).splitlines()[0] == "53 of 53 BatchNorms converted (53 by graph)"
    assert "parameters: 25,557,032 -> 25,769,512" in str(report)


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "test_efficientnet"])
def test_every_batchnorm_that_runs_is_a_call_site(name: str) -> None:
    """The audit: hooks count in a forward what the graph counts without one."""
    model = timm.create_model(name)
    report = make_switchable(model, (64, 32)).report
    assert len(report.batchnorms) == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert all((record.found, record.calls) == ("graph", 1) for record in report.batchnorms)
    assert all(record.producer for record in report.batchnorms)


class Odd(nn.Module):
    """A BatchNorm of each way: called twice under two names, behind control flow, in train mode alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.alias = self.bn
        self.branch = Branch()
        self.aux = nn.BatchNorm2d(4, affine=False, track_running_stats=False)

    def forward(self, x):
        x = self.branch(self.alias(self.bn(self.conv(x))))
        return self.aux(x) if self.training else x


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(x) if x.shape[-1] > 8 else x


def test_each_way_to_a_batchnorm_is_told() -> None:
    report = make_switchable(Odd(), (64, 32)).report
    facts = {r.name: (r.found, r.calls, r.channels, r.producer) for r in report.batchnorms}
    assert facts == {
        "bn": ("graph", 2, 4, None),
        "branch.bn": ("leaf", 1, 4, None),
        "aux": ("tree", 0, 4, None),
    }
    assert list(report.opaque) == ["branch"]
    assert "1 by graph, 1 by leaf, 1 by tree" in str(report)


def test_a_branch_that_one_resolution_takes_is_counted() -> None:
    report = make_switchable(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Branch()), (16, 8)).report
    assert [record.calls for record in report.batchnorms] == [1]


class Flagged(nn.Module):
    """Its branch depends on a flag that tracing never sees set."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return self.bn(x) if type(x) is Tensor else x


def test_the_audit_names_what_the_graph_did_not_see() -> None:
    report = make_switchable(Flagged(), (64, 32)).report
    assert report.unseen == ("bn",)
    assert "ran unseen by the graph: bn" in str(report)
    assert make_switchable(Odd(), (64, 32)).report.unseen == ()


def test_the_report_is_plain_data() -> None:
    report = make_switchable(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), (64, 32)).report
    data = json.loads(json.dumps(report.to_dict()))
    assert data["batchnorms"][0]["kind"] == "BatchNorm2d"
    assert data["exact"] == {"64": True, "32": True}
