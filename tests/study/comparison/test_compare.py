"""compare: from a plan to a report, seed after seed."""

import csv
from pathlib import Path
from typing import Any

import pytest

from rsconvert.study import Plan, compare, plan_comparison
from rsconvert.surgery import SwitchableModel


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
    assert all(set(by_seed) == {0, 1} for line in found.lines for by_seed in line.top1.values())
