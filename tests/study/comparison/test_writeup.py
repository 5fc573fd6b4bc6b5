"""The report: each number in it is one of the comparison's, and each file that it names is there."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rsconvert.study.comparison.markdown import write_report

from rsconvert.study import Comparison


@pytest.fixture
def text(found: Comparison) -> str:
    write_report(found, "rsconvert compare net --data photos")
    return (found.folder / "report.md").read_text()


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def test_the_page_holds_tables_command_budget_times_and_machine(found: Comparison, text: str) -> None:
    assert "```sh\nrsconvert compare net --data photos\n```" in text
    assert found.table() in text
    assert found.gain_table() in text
    assert "on 200 images, mean ± sample standard deviation over the seeds (0, 5)" in text
    assert "| RS-Net | 0.70 | 0.30 |" in text
    assert "| `rsnet` | 1.5 | 6.5 |" in text
    assert "| `inets-32` | 0.5 |  |" in text
    assert "| `crop_area` | 0.35, 1 |" in text
    assert "`teacher`" not in text
    assert "divided by S" in text
    assert "last epoch's network" in text
    assert "- device cpu, name Some Processor" in text


def test_the_files_that_the_page_names_are_there(found: Comparison, text: str) -> None:
    links = set(re.findall(r"\]\(([^)]+)\)", text))
    assert links == {f"{name}.{end}" for name in ("accuracy", "gains", "scores") for end in ("png", "svg")} | {
        "accuracy.csv",
        "scores.csv",
    }
    assert [link for link in links if not (found.folder / link).is_file()] == []


def test_the_numbers_lie_beside(found: Comparison, text: str) -> None:
    accuracies = rows(found.folder / "accuracy.csv")
    assert len(accuracies) == 2 * 2 + 3 * 2 + 3 * 2
    (row,) = [r for r in accuracies if (r["method"], r["resolution"], r["seed"]) == ("rsnet", "16", "5")]
    assert (row["top1"], row["top5"], row["gain"], row["trained"]) == ("69.0", "99.5", "8.0", "True")
    assert [r["gain"] for r in accuracies if r["resolution"] == "24"] == [""] * 4
    scores = rows(found.folder / "scores.csv")
    assert [r["score"] for r in scores if (r["seed"], r["resolution"]) == ("5", "32")] == ["0.5", "0.8"]
    assert {r["method"] for r in scores} == {"rsnet"}
    assert json.loads((found.folder / "report.json").read_text()) == json.loads(json.dumps(found.to_dict()))


def test_without_i_nets_there_are_no_gains(found: Comparison) -> None:
    alone = replace(found, methods=found.methods[1:], lines=found.lines[2:], runs=found.runs[:2])
    write_report(alone)
    text = (found.folder / "report.md").read_text()
    assert "ains" not in text
    assert "```" not in text
    assert not (found.folder / "gains.png").exists()


def test_one_rate_for_all_is_told(found: Comparison) -> None:
    write_report(replace(found, settings={**found.settings, "same_lr": True}))
    assert "All methods learn at the same rate." in (found.folder / "report.md").read_text()
