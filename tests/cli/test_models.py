"""The command models: the table as a list, one model measured at once, and one line for a mistake."""

import fnmatch
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from rsconvert.cli import main
from rsconvert.compatibility import read_table, totals


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments])


def test_the_list_is_the_table() -> None:
    rows = [row for row in read_table().rows if fnmatch.fnmatchcase(row.name, "resnet1*")]
    result = run("resnet1*")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines[: len(rows)]] == [[row.name, row.size_class] for row in rows]
    assert lines[-1].startswith(f"{len(rows)} models, ")
    assert f"timm {read_table().versions['timm']}" in lines[-1]


def test_json_is_one_object_with_the_totals() -> None:
    facts = json.loads(run("--json", "--class", "A").stdout)
    rows = tuple(row for row in read_table().rows if row.size_class == "A")
    assert facts["totals"] == totals(rows)
    assert [row["name"] for row in facts["models"]] == [row.name for row in rows]
    assert {row["class"] for row in facts["models"]} == {"A"}


def test_a_model_is_measured_at_once() -> None:
    result = run("--check", "test_efficientnet")
    assert result.exit_code == 0, result.output
    assert "exact in eval mode at 224, 192, 160, 128, 96" in result.stdout
    assert "a training step at 96: same output, gradients and statistics" in result.stdout
    facts = json.loads(run("--check", "convnext_atto", "--json").stdout)
    assert (facts["class"], facts["batchnorms"]) == ("none", 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet1888"], ["resnet1888", "resnet18"]),
        (["%*"], ["%*", "--check"]),
        (["--check", "resnet1888"], ["resnet1888", "resnet18"]),
        (["resnet*", "--check", "resnet18"], ["resnet18", "no effect"]),
        (["--check", "resnet18", "--class", "A"], ["resnet18", "no effect"]),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], words: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert [word for word in words if word not in line] == []


def test_the_list_is_shown_without_torch() -> None:
    code = "import sys; from rsconvert.cli import main; main(['models', 'resnet18'], standalone_mode=False)"
    code += "; print(sorted({'torch', 'timm', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
