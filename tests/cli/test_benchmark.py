"""The command benchmark: its JSON, the table that it stores, and what it refuses."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file

import rsconvert
from rsconvert.cli import main
from rsconvert.evaluation import Switching, machine_key
from rsconvert.runtime import resolution_for_budget

QUICK = ("--rounds", 1, "--forms", "plain", "--device", "cpu")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint and labelled images, where the commands run."""
    monkeypatch.chdir(tmp_path)
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (4, 40, 40, 3), dtype=np.uint8)):
        file = tmp_path / "photos" / "val" / f"c{i % 2}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    options = ("--no-pretrained", "--num-classes", 2, "--resolutions", "48,32", "-o", "net.safetensors")
    result = run("wrap", "test_efficientnet", *options)
    assert result.exit_code == 0, result.output
    return tmp_path


def test_json_says_what_was_measured_and_the_file_is_left(place: Path) -> None:
    before = Path("net.safetensors").read_bytes()
    result = run("benchmark", "net.safetensors", *QUICK, "--resolutions", "32:48:8", "--batch-sizes", "1,2", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert [(c["resolution"], c["batch_size"]) for c in facts["costs"]] == [
        (r, b) for r in (48, 40, 32) for b in (1, 2)
    ]
    assert (facts["machine"], facts["stored"]) == (machine_key(torch.device("cpu")), False)
    assert facts["switching"]["create_ms"] > 0
    assert facts["switching"]["load_ms"] > 0
    assert Path("net.safetensors").read_bytes() == before


def test_the_stored_table_has_the_top1_of_evaluate(place: Path) -> None:
    before = load_file("net.safetensors")
    options = ("--resolutions", "48,40", "--data", "photos", "--workers", 0)
    result = run("benchmark", "net.safetensors", *QUICK, *options, "--store")
    assert result.exit_code == 0, result.output
    assert "stored in net.safetensors" in result.stdout
    told = json.loads(run("evaluate", "net.safetensors", *options, "--device", "cpu", "--json").stdout)["resolutions"]
    net = rsconvert.load("net.safetensors")
    ((machine, rows),) = net.measured.costs.items()
    assert machine == machine_key(torch.device("cpu"))
    assert {str(row["resolution"]): row["top1"] for row in rows} == {r: row["top1"] for r, row in told.items()}
    assert {str(row["resolution"]): row["multiply_adds"] for row in rows} == {
        r: row["multiply_adds"] for r, row in told.items()
    }
    assert resolution_for_budget(net, latency_ms=1e9) in (48, 40)
    after = load_file("net.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_full_disk_leaves_the_file(
    place: Path, full_disk: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsconvert.evaluation.benchmark.measure_switching", lambda *_, **__: Switching(32, 0.1))
    before = Path("net.safetensors").read_bytes()
    with full_disk():
        result = run("benchmark", "net.safetensors", *QUICK, "--store")
    assert result.exit_code == 1
    assert "net.safetensors can't be written" in result.stderr
    assert Path("net.safetensors").read_bytes() == before


def test_a_folder_that_can_not_be_written_is_told_before_measuring(place: Path, monkeypatch) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("rsconvert.evaluation.measure_costs", lambda *_, **__: pytest.fail("it measured"))
    result = run("benchmark", "net.safetensors", *QUICK, "--store")
    assert result.exit_code == 1
    assert "net.safetensors can't be written" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--forms", "plane"], "Did you mean plain?"),
        (["--batch-sizes", "2,2"], "batch_sizes has 2 twice"),
        (["--batch-sizes", "x"], "batch_sizes is 'x'"),
        (["--resolutions", "48,48"], "48"),
        (["--rounds", "0"], "rounds is 0"),
        (["--threads", "0"], "threads is 0"),
        (["--workers", "1"], "workers is 1 without data"),
        (["--device", "banana"], "device is 'banana'"),
    ],
)
def test_a_mistake_is_one_line(place: Path, options: list[str], words: str) -> None:
    result = run("benchmark", "net.safetensors", *options)
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    assert words in line
