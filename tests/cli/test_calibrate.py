"""The command calibrate: its file, its name, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file

from rsconvert.cli import main

NAME = "test_efficientnet"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint and a flat folder of images, where the commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (6, 40, 40, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    result = run("wrap", NAME, "--no-pretrained", "--resolutions", "48,32", "-o", "net.rs.safetensors")
    assert result.exit_code == 0, result.output
    return tmp_path


def test_it_writes_a_file_of_its_own(place: Path) -> None:
    options = ["--data", "photos", "--images", 4, "--workers", 0, "--device", "cpu"]
    result = run("calibrate", "net.rs.safetensors", *options, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["checkpoint"], facts["images"], facts["left"]) == ("net.calibrated.safetensors", 4, {})
    before, after = load_file("net.rs.safetensors"), load_file("net.calibrated.safetensors")
    different = {name for name, tensor in after.items() if tensor.numpy().tobytes() != before[name].numpy().tobytes()}
    assert different == {name for name in before if ".at.32.running_" in name}
    assert facts["resolutions"] == {"32": len(different) // 2}
    again = run("calibrate", "net.rs.safetensors", *options)
    assert again.exit_code == 1
    assert "--force" in again.stderr
    text = run("calibrate", "net.rs.safetensors", *options, "--force", "--form", "momentum", "--resolutions", "48")
    assert text.exit_code == 0, text.output
    assert "(momentum) from 4 images" in text.stdout
    assert "wrote net.calibrated.safetensors" in text.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", "photos", "--images", "0"], "images is 0"),
        (["--data", "photos", "--resolutions", "40"], "resolution 40 was not trained"),
        (["--data", "photos", "--resolutions", "x"], "x"),
        (["--data", "photos", "--data-root", "x"], "data_root is x"),
        (["--data", "photos", "-o", ""], "output is empty"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(place: Path, options: list[str], words: str) -> None:
    result = run("calibrate", "net.rs.safetensors", "--workers", 0, *options)
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    assert words in line
    assert sorted(p.name for p in place.iterdir()) == ["net.rs.safetensors", "photos"]
