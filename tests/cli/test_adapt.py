"""calibrate, quantize and cascade: their files, the names of these, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file

import rsconvert
from rsconvert import runtime
from rsconvert.cli import main
from rsconvert.runtime.cascade_report import CascadeReport

NAME = "test_efficientnet"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def place(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint and a flat folder of images, where the commands run."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(labelled / "photos" / "val" / "a", "photos")
    shutil.copy(labelled / "net.rs.safetensors", ".")
    return tmp_path


def test_weights_of_few_bits_without_training(place: Path) -> None:
    options = ["--data", "photos", "--images", 4, "--workers", 0, "--json"]
    result = run("quantize", "net.rs.safetensors", *options, "--bits", "4/32")
    assert result.exit_code == 0, result.output
    assert "quantized to 4/32 bits" in result.stderr
    sides = map(str, rsconvert.load("net.w4.safetensors").resolutions)
    assert set(json.loads(result.stdout)["resolutions"]) == set(sides)
    assert Path("net.w4.safetensors").stat().st_size < Path("net.rs.safetensors").stat().st_size
    wrong = run("quantize", "net.rs.safetensors", *options, "-o", "w.safetensors", "--bits", "2/2")
    assert wrong.exit_code == 1
    assert wrong.stderr.startswith("Error: bits is 2/2, which quantizes activations")


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


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a calibrated checkpoint and labelled images."""
    base = tmp_path_factory.mktemp("cascade")
    noise = np.random.default_rng(0).integers(0, 120, (2, 8, 56, 56, 3))
    for name, bright, pixels in zip("ab", (0, 100), noise, strict=True):
        folder = base / "photos" / "val" / name
        folder.mkdir(parents=True)
        for i, image in enumerate((pixels + bright).astype(np.uint8)):
            Image.fromarray(image).save(folder / f"{i}.png")
    torch.manual_seed(0)
    net = rsconvert.make_switchable(rsconvert.create_model(NAME, num_classes=2), (48, 32))
    rsconvert.calibrate(net, base / "photos", (48, 32), workers=0)
    rsconvert.save(net, base / "net.rs.safetensors")
    return base


@pytest.fixture
def calibrated(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in the folder where the commands run."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(labelled, tmp_path, dirs_exist_ok=True))


def test_cascade_writes_a_file_of_its_own(calibrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CascadeReport, "gains", True)  # eight images of noise decide nothing
    options = ["--data", "photos", "--workers", 0, "--device", "cpu", "--resolutions", "32:48:8"]
    result = run("cascade", "net.rs.safetensors", *options, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["checkpoint"] == "net.cascade.safetensors"
    assert list(facts["paths"]) == ["48", "40", "32"]
    assert (facts["fit"]["count"], facts["measured"]["count"]) == (8, 8)
    net = rsconvert.load("net.cascade.safetensors").eval()
    assert (net.measured.cascade or {})["stages"] == facts["stages"]
    logits, answered = rsconvert.cascade(net, torch.rand(3, 3, 48, 48))
    assert logits.shape == (3, 2)
    assert set(answered.tolist()) <= set(facts["stages"])
    again = run("cascade", "net.rs.safetensors", *options)
    assert again.exit_code == 1
    assert "--force" in again.stderr
    text = run("cascade", "net.rs.safetensors", *options, "--force", "--multiply-adds", "1e9")
    assert text.exit_code == 0, text.output
    assert "8 images measured, 8 others of the fit (seed 0)" in text.stdout
    assert "wrote net.cascade.safetensors" in text.stdout
    rows = [line.split() for line in text.stdout.splitlines()]
    assert [row[0] for row in rows[:5]] == ["resolution", "48", "40", "32", "cascade"]
    assert rows[2][-1] == "interpolated"
    assert run("inspect", "net.cascade.safetensors").stdout.count("stages") == 1


def test_a_cascade_without_a_gain_writes_no_file(calibrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = runtime.fit_cascade

    def useless(*arguments: Any, **options: Any) -> Any:
        report = fit(*arguments, **options)
        return replace(report, measured=replace(report.measured, top1=0.0, multiply_adds=1e12))

    monkeypatch.setattr(runtime, "fit_cascade", useless)
    options = ["--data", "photos", "--workers", 0, "--device", "cpu"]
    text = run("cascade", "net.rs.safetensors", *options)
    assert text.exit_code == 0, text.output
    assert text.stdout.splitlines()[-2].startswith("no gain on these images")
    assert text.stdout.splitlines()[-1] == "wrote no file"
    facts = json.loads(run("cascade", "net.rs.safetensors", *options, "--json").stdout)
    assert (facts["checkpoint"], facts["gains"]) == (None, False)
    assert not (calibrated / "net.cascade.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", "nowhere", "--accuracy", "101"], "accuracy is 101"),
        (["--data", "nowhere", "--accuracy", "nan"], "accuracy is nan"),
        (["--data", "nowhere", "--multiply-adds", "0"], "multiply_adds is 0.0; a number above 0"),
        (["--data", "photos", "--multiply-adds", "1"], "multiply_adds is 1"),
        (["--data", "photos", "--accuracy", "50", "--multiply-adds", "1e9"], "one of them can be the aim"),
        (["--data", "photos", "--resolutions", "48"], "resolutions is 48 alone"),
        (["--data", "photos", "-o", ""], "output is empty"),
    ],
)
def test_a_mistake_of_a_cascade_writes_nothing(calibrated: Path, options: list[str], words: str) -> None:
    result = run("cascade", "net.rs.safetensors", "--workers", 0, "--device", "cpu", *options)
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    assert words in line
    assert sorted(p.name for p in calibrated.iterdir()) == ["net.rs.safetensors", "photos"]


def test_quantize_writes_ranges_from_which_int8_files_are_exported(place: Path) -> None:
    options = ["--data", "photos", "--images", 3, "--workers", 0]
    result = run("quantize", "net.rs.safetensors", *options, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["checkpoint"], facts["images"], facts["resolutions"]) == ("net.int8.safetensors", 3, [48, 32])
    assert facts["equal"] <= facts["weights"]
    before, after = load_file("net.rs.safetensors"), load_file("net.int8.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    told = run("inspect", "net.int8.safetensors")
    assert "int8: ranges of activations, from 3 images" in told.stdout
    onnx = ["--format", "onnx", "--int8", "--resolution", "32", "-o", "net.onnx"]
    made = run("export", "net.int8.safetensors", *onnx)
    assert made.exit_code == 0, made.output
    assert (place / "net.onnx").stat().st_size < (place / "net.rs.safetensors").stat().st_size / 2
    refused = run("export", "net.rs.safetensors", *onnx, "--force")
    assert "the network holds none" in refused.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["quantize", "net.rs.safetensors", "--data", "nowhere"], "nowhere"),
        (["quantize", "net.rs.safetensors", "--data", "photos", "--images", "0"], "images is 0"),
        (["quantize", "net.rs.safetensors", "--data", "photos", "-o", "net.rs.safetensors"], "exists"),
        (["export", "net.rs.safetensors", "--int8", "-o", "x.onnx"], "int8 is set for the format switchable"),
        (
            ["export", "net.rs.safetensors", "--format", "onnx", "--int8", "--fp16", "-o", "x.onnx"],
            "fp16 is set, and int8; a file has one precision",
        ),
    ],
)
def test_a_mistake_about_int8_is_one_line(place: Path, command: list[str], words: str) -> None:
    result = run(*command)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert words in line
    assert not (place / "x.onnx").exists()
