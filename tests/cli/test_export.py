"""The command export for ONNX: its files, what it prints, and one line for a mistake."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rsconvert.cli import main

MODEL = """
from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint, where the commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    result = run("wrap", "model.py:build", "--no-pretrained", "--resolutions", "16,8", "-o", "net.safetensors")
    assert result.exit_code == 0, result.output
    return tmp_path


def test_it_writes_verified_files(place: Path) -> None:
    options = ["net.safetensors", "--model", "model.py:build", "--format", "onnx"]
    result = run("export", *options, "-o", "net.onnx", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["output"], facts["format"], facts["resolution"]) == ("net.onnx", "onnx", None)
    assert list(facts["files"]) == ["net.onnx"]
    assert facts["files"]["net.onnx"]["passed"] is True
    assert list(facts["files"]["net.onnx"]["resolutions"]) == ["16", "12", "8", "16x8"]
    verified = run("verify", "net.onnx", "net.safetensors", "--model", "model.py:build", "--resolutions", "20,16,10,8")
    assert verified.exit_code == 0, verified.output
    plain = run("export", *options, "-o", "net.onnx", "--resolution", "16,8", "--shared-weights")
    assert plain.exit_code == 0, plain.output
    assert [line for line in plain.stdout.splitlines() if "wrote" in line] == ["wrote net-16.onnx", "wrote net-8.onnx"]
    assert sorted(p.name for p in place.glob("net*.onnx")) == ["net-16.onnx", "net-8.onnx", "net.onnx"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "onnx", "-o", "x.onnx", "--resolution", "x"], "resolutions has 'x'"),
        (["--format", "onnx", "-o", "x.onnx", "--resolutions", "16"], "Use --resolution"),
        (["--format", "onnx", "-o", "there.onnx"], "there.onnx exists"),
        (["--format", "onnx", "-o", ""], "has the suffix ''"),
        (["--format", "onnx", "-o", "x.onnx", "--shared-weights"], "two or more can share"),
        (["--format", "timm", "-o", "x", "--resolution", "16,8"], "a plain format needs one"),
        (["--format", "timm", "-o", "x", "--resolution", "16", "--compact"], "onnx takes them"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(place: Path, options: list[str], words: str) -> None:
    (place / "there.onnx").touch()
    result = run("export", "net.safetensors", "--model", "model.py:build", *options)
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    assert words in line
    assert sorted(p.name for p in place.iterdir() if p.is_file()) == ["model.py", "net.safetensors", "there.onnx"]
