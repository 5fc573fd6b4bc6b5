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
    assert text.stdout.splitlines()[0] == f"wrote {path}"
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
