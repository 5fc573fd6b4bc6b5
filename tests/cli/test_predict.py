"""The command predict: photos and folders, what it prints and writes, what is refused."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import rsconvert
from rsconvert.cli import main
from rsconvert.evaluation import Benchmark, store_costs


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["predict", *(str(argument) for argument in arguments)])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: Callable[..., Benchmark]) -> Path:
    """A folder with a checkpoint, a folder of three photos and one photo more, where the command runs."""
    monkeypatch.chdir(tmp_path)
    net = rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=3), (48, 32)).eval()
    net.source = replace(net.source, class_names=("ant", "bee", "n01440764"))
    store_costs(net, table((48, 3.0, None), (32, 1.0, None)))
    rsconvert.save(net, "net.safetensors")
    Path("photos").mkdir()
    for name in ("photos/1", "photos/2", "photos/10", "one"):
        pixels = np.random.default_rng(len(name)).integers(0, 255, (60, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{name}.png")
    return tmp_path


def test_photos_and_folders_become_a_table(place: Path) -> None:
    result = run("net.safetensors", "one.png", "photos", "--top-k", 2, "--device", "cpu")
    assert result.exit_code == 0, result.output
    title, *lines = result.stdout.splitlines()
    assert title.split()[0] == "image"
    assert [line.split()[0] for line in lines[::2]] == ["one.png", "photos/1.png", "photos/2.png", "photos/10.png"]
    assert {line.split()[-2] for line in lines} <= {"ant", "bee", "tench"}


def test_json_and_files_hold_the_same(place: Path) -> None:
    arguments = ("net.safetensors", "photos", "--resolution", 32, "--device", "cpu")
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["network"], len(facts["images"])) == ("net.safetensors", 3)
    assert {image["resolution"] for image in facts["images"]} == {32}
    assert run(*arguments, "-o", "found.json").stdout == "wrote found.json: 3 images\n"
    assert json.loads(Path("found.json").read_text()) == facts
    assert run(*arguments, "-o", "found.csv").exit_code == 0
    with open("found.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(i["image"], c["name"], c["probability"]) for i in facts["images"] for c in i["classes"]]
    assert [(row["image"], row["class"], float(row["probability"])) for row in rows] == expected


def test_the_path_that_a_budget_chose_is_said(place: Path) -> None:
    result = run("net.safetensors", "one.png", "--latency-ms", 2, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "resolution 32: the best within 2 ms" in result.stderr


def test_missing_names_are_said(place: Path) -> None:
    net = rsconvert.load("net.safetensors")
    net.source = replace(net.source, class_names=None)
    rsconvert.save(net, "nameless.safetensors")
    arguments = ("nameless.safetensors", "one.png", "--device", "cpu")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "does not name its classes; --class-map FILE gives them" in result.stderr
    Path("map.txt").write_text("ant 0\nbee 1\ncat 2\n")
    named = run(*arguments, "--class-map", "map.txt")
    assert "note" not in named.stderr
    assert {line.split()[-2] for line in named.stdout.splitlines()[1:]} == {"ant", "bee", "cat"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["net.safetensors", "nowhere.png"], "nowhere.png does not exist"),
        (["nowhere.safetensors", "one.png"], "nowhere.safetensors"),
        (["nowhere.onnx", "one.png"], "nowhere.onnx"),
        (["net.safetensors", "one.png", "--top-k", "0"], "top_k is 0"),
        (["net.safetensors", "one.png", "--cascade"], "the network has no cascade"),
        (["net.safetensors", "one.png", "--resolution", "0"], "resolution"),
        (
            ["net.safetensors", "one.png", "--latency-ms", "0.1"],
            "latency_ms is 0.1 ms; the cheapest path, of 32 pixels, takes 1 ms",
        ),
        (["net.safetensors", "one.png", "-o", "found.txt"], "output is found.txt; a name in .csv or .json"),
        (["net.safetensors", "one.png", "-o", "one.png"], "one.png exists"),
        (["net.onnx", "one.png", "--model", "a.py:b"], "model is a.py:b for an ONNX file"),
        (["net.safetensors", "one.png", "--class-map", "nowhere.txt"], "class map nowhere.txt can't be read"),
    ],
)
def test_a_mistake_is_one_line(place: Path, arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert words in line


def test_no_photo_is_wrong_usage(place: Path) -> None:
    assert run("net.safetensors").exit_code == 2
