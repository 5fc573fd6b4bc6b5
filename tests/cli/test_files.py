"""The command verify: figures and exit status for a good export and a bad one, one line for a mistake."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file, save_file

from rsconvert.cli import main

NAME = "test_efficientnet"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, an export of it, and images."""
    folder = tmp_path_factory.mktemp("verify")
    (folder / "photos").mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (6, 40, 40, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
    for arguments in (
        ("wrap", NAME, "--no-pretrained", "--resolutions", "48,32", "-o", folder / "net.safetensors"),
        ("export", folder / "net.safetensors", "--format", "timm", "--resolution", "32", "-o", folder / "plain"),
    ):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
    return folder


def test_a_good_export_passes(place: Path) -> None:
    result = run("verify", place / "plain", place / "net.safetensors", "--data", place / "photos", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["passed"], facts["difference"], facts["tolerance"]) == (True, 0.0, 1e-4)
    assert list(facts["resolutions"]) == ["32"]
    assert facts["resolutions"]["32"]["images"] == 12
    text = run("verify", place / "plain", place / "net.safetensors", "--resolutions", "32")
    assert text.exit_code == 0
    assert text.stdout.splitlines()[-1].startswith("agrees: largest relative difference 0.0e+00")


def test_a_tampered_export_fails(place: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((place / "plain" / "config.json").read_bytes())
    tensors = load_file(place / "plain" / "model.safetensors")
    tensors["bn1.running_mean"] += 1
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    result = run("verify", tmp_path, place / "net.safetensors", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["passed"] is False
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {tmp_path} disagrees with the network at 32 (32: difference ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.onnx", "net.safetensors"], "nowhere.onnx does not exist"),
        (["plain", "nowhere.safetensors"], "nowhere.safetensors"),
        (["plain", "net.safetensors", "--resolutions", "48"], "bound to 32"),
        (["plain", "net.safetensors", "--resolutions", "x"], "x"),
        (["plain", "net.safetensors", "--tolerance", "0"], "tolerance is 0"),
        (["plain", "net.safetensors", "--resolutions", "32:48"], "resolutions has 32:48; a range is"),
        (["plain", "net.safetensors", "--data", "nowhere"], "nowhere"),
        (["plain", "net.safetensors", "--data", ""], "data is empty"),
        (["plain", "net.safetensors", "--data", "photos", "--images", "0"], "images 0"),
        (["plain", "net.safetensors", "--images", "5"], "images is 5 without data"),
    ],
)
def test_a_mistake_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    monkeypatch.chdir(place)
    result = run("verify", *arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert words in line


def test_inspect_prints_lines_of_a_terminal_and_all_as_json(place: Path) -> None:
    text = run("inspect", place / "net.safetensors")
    assert text.exit_code == 0, text.output
    assert max(map(len, text.stdout.splitlines())) <= 110
    assert "resolution  crop_pct  importance score" in text.stdout
    facts = json.loads(run("inspect", place / "net.safetensors", "--json").stdout)
    assert facts["importance_scores"] == {"48": 0.5, "32": 0.5}


@pytest.mark.parametrize("command", [["inspect"], ["predict", "x.png"], ["finetune", "--data", "x", "--output", "y"]])
def test_the_name_of_a_model_is_no_file(command: list[str]) -> None:
    name, *options = command
    result = run(name, "resnet50.a1_in1k", *options)
    assert result.exit_code == 1
    assert "is a model's name; a switchable file is needed. Convert it first: rsconvert wrap" in result.stderr
