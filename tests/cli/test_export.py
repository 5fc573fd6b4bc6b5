"""The command export: plain files of one resolution or several, folded or not, and options that fit no format."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner, Result

import rsconvert
from rsconvert.cli import main

NAME = "test_efficientnet"
MODEL = """
from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    facts: dict[str, Any] = json.loads(result.stdout)
    return facts


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "net.safetensors"
    done("wrap", NAME, "--no-pretrained", "--resolutions", "48,32", "-o", path)
    return path


@torch.no_grad()
def test_all_writes_one_folder_for_each_trained_resolution(checkpoint: Path, tmp_path: Path) -> None:
    facts = done("export", checkpoint, "--format", "timm", "--resolution", "all", "-o", tmp_path / "out")
    assert facts["files"] == {"48": str(tmp_path / "out-48"), "32": str(tmp_path / "out-32")}
    assert facts["resolution"] == [48, 32]
    net = rsconvert.load(checkpoint).eval()
    for side in (48, 32):
        model = timm.create_model(f"local-dir:{tmp_path / f'out-{side}'}", pretrained=True).eval()
        x = torch.rand(2, 3, side, side)
        assert torch.equal(model(x), net(x))


@torch.no_grad()
def test_a_list_of_programs_may_hold_untrained_resolutions(checkpoint: Path, tmp_path: Path) -> None:
    done("export", checkpoint, "--format", "program", "--resolution", "48,40", "-o", tmp_path / "net.pt2")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["net-40.pt2", "net-48.pt2"]
    x = torch.rand(3, 3, 40, 40)
    program = torch.export.load(tmp_path / "net-40.pt2").module()
    assert torch.equal(program(x), rsconvert.load(checkpoint).eval()(x))


def test_a_folded_program_tells_what_was_folded_and_is_verified(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    arguments = ("export", checkpoint, "--format", "program", "--resolution", "32", "--fold-bn", "-o", path)
    facts = done(*arguments)
    folding = facts["folding"]["32"]
    assert len(folding["folded"]) == sum(1 for _ in rsconvert.load(checkpoint).switchable_bns())
    assert folding["kept"] == {}
    assert folding["difference"] < 1e-4
    assert facts["resolution"] == 32
    text = run(*arguments, "--force")
    assert text.stdout.splitlines()[0] == f"wrote {path} (32 pixels)"
    assert text.stdout.splitlines()[1].startswith("32: ")
    assert done("verify", path, checkpoint)["passed"]


def test_options_without_effect_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out")
    assert "fold-bn" in refused("export", checkpoint, "--fold-bn", *out)
    assert "resolution is all" in refused("export", checkpoint, "--resolution", "all", *out)
    assert "aot is set for the format timm" in refused(
        "export", checkpoint, "--format", "timm", "--resolution", "32", "--aot", *out
    )
    assert "'x'" in refused("export", checkpoint, "--format", "timm", "--resolution", "x", *out)
    assert "compact is set for the format program" in refused(
        "export", checkpoint, "--format", "program", "--resolution", "32", "--compact", *out
    )
    assert not (tmp_path / "out").exists()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint, where the commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    result = run("wrap", "model.py:build", "--no-pretrained", "--resolutions", "16,8", "-o", "net.safetensors")
    assert result.exit_code == 0, result.output
    return tmp_path


def test_onnx_files_are_verified(place: Path) -> None:
    options = ["net.safetensors", "--model", "model.py:build", "--format", "onnx"]
    result = run("export", *options, "-o", "net.onnx", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["output"], facts["format"], facts["resolution"]) == ("net.onnx", "onnx", None)
    assert list(facts["files"]) == ["net.onnx"]
    assert facts["files"]["net.onnx"]["passed"] is True
    assert list(facts["files"]["net.onnx"]["resolutions"]) == ["16", "14", "12", "8", "16x8"]
    verified = run("verify", "net.onnx", "net.safetensors", "--model", "model.py:build", "--resolutions", "20,16,10,8")
    assert verified.exit_code == 0, verified.output
    plain = run("export", *options, "-o", "net.onnx", "--resolution", "16,8", "--shared-weights")
    assert plain.exit_code == 0, plain.output
    assert [line for line in plain.stdout.splitlines() if "wrote" in line] == [
        "wrote net-16.onnx (16 pixels)",
        "wrote net-8.onnx (8 pixels)",
        "wrote net.weights, which these files read",
    ]
    assert sorted(p.name for p in place.glob("net*.onnx")) == ["net-16.onnx", "net-8.onnx", "net.onnx"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "onnx", "-o", "x.onnx", "--resolution", "x"], "resolution has 'x'"),
        (["--format", "onnx", "-o", "x.onnx", "--resolutions", "16"], "it has an effect on switchable alone"),
        (["--format", "onnx", "-o", "there.onnx"], "there.onnx exists"),
        (["--format", "onnx", "-o", ""], "has the suffix ''"),
        (["--format", "onnx", "-o", "x.onnx", "--branches", "16,0"], "branches has 0"),
        (["--format", "onnx", "-o", "x.onnx", "--branches", "16", "--compact"], "compact is set, and branches is [16]"),
        (["--format", "onnx", "-o", "x.onnx", "--branches", "8:16"], "branches has 8:16; a range is"),
        (["-o", "x.safetensors", "--branches", ""], "branches is empty for the format switchable"),
        (
            ["--format", "program", "-o", "x.pt2", "--resolution", "16", "--branches", "16"],
            "branches is 16 for the format",
        ),
        (["--format", "onnx", "-o", "x.onnx", "--shared-weights"], "two or more can share"),
        (["--format", "timm", "-o", "x", "--resolution", "16", "--compact"], "compact is set for the format timm"),
    ],
)
def test_a_mistake_about_onnx_is_one_line_and_writes_nothing(place: Path, options: list[str], words: str) -> None:
    (place / "there.onnx").touch()
    result = run("export", "net.safetensors", "--model", "model.py:build", *options)
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    assert words in line
    assert sorted(p.name for p in place.iterdir() if p.is_file()) == ["model.py", "net.safetensors", "there.onnx"]


def test_the_name_of_several_may_be_taken_by_another_file(checkpoint: Path, tmp_path: Path) -> None:
    """Only the files that are written have to be free."""
    (tmp_path / "net.pt2").write_text("mine")
    (tmp_path / "net-32.pt2").write_text("mine too")
    line = refused("export", checkpoint, "--format", "program", "--resolution", "all", "-o", tmp_path / "net.pt2")
    assert "net-32.pt2 exists" in line
    assert {p.name for p in tmp_path.iterdir()} == {"net.pt2", "net-32.pt2"}
