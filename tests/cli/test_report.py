"""The command report: its file, what it prints, what it refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from rsconvert.cli import main

OPTIONS = ["--data", "photos", "--workers", 0, "--device", "cpu", "--examples", 2]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run of one epoch, made by hand, and a folder of images."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "photos" / "val" / name).mkdir(parents=True)
        for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), dtype=np.uint8)):
            Image.fromarray(pixels).save(tmp_path / "photos" / "val" / name / f"{i}.png")
    (tmp_path / "run").mkdir()
    options = ["--no-pretrained", "--num-classes", 2, "--resolutions", "48,32", "-o", "run/best.safetensors"]
    assert run("wrap", "test_efficientnet", *options).exit_code == 0
    (tmp_path / "run" / "summary.csv").write_text("epoch,loss,score_48,score_32,top1_48,top1_32\n1,2,.5,.5,50,50\n")
    return tmp_path


def test_it_writes_a_page_about_a_run(place: Path) -> None:
    baseline = ["--baseline", "twin=run/best.safetensors"]
    result = run("report", "run", *OPTIONS, *baseline)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"wrote report\.html, 0\.\d MB: 3 sizes, 2 example images\n", result.stdout)
    page = (place / "report.html").read_text(encoding="utf-8")
    assert "The run" in page
    assert page.count("<img ") == 6
    facts = json.loads(page.partition('id="facts">')[2].partition("</script>")[0])
    twin = facts["evaluation"]["baselines"]["twin"]["resolutions"]["48"]["paired"]
    assert (twin["only_network"], twin["only_baseline"]) == (0, 0)
    assert facts["checkpoint"]["name"] == "run/best.safetensors"
    assert facts["made"]["command"].startswith("rsconvert")


def test_json_is_that_of_evaluate(place: Path) -> None:
    told = run("report", "run/best.safetensors", *OPTIONS, "--resolutions", "48,32", "-o", "x.html", "--json")
    measured = run("evaluate", "run", *OPTIONS[:6], "--per-class", "--json")
    facts = json.loads(told.stdout)
    assert facts.pop("output") == "x.html"
    assert facts.pop("bytes") == (place / "x.html").stat().st_size
    assert facts == json.loads(measured.stdout)
    assert "The run" not in (place / "x.html").read_text(encoding="utf-8")


def test_it_takes_a_published_folder(place: Path) -> None:
    assert run("export", "run", "--format", "hub", "-o", "hub").exit_code == 0
    for folder in ("hub", "local-dir:hub"):
        result = run("report", folder, *OPTIONS, "--resolutions", "32", "--force")
        assert result.exit_code == 0, result.output
        page = (place / "report.html").read_text(encoding="utf-8")
        facts = json.loads(page.partition('id="facts">')[2].partition("</script>")[0])
        assert facts["checkpoint"]["name"] == "hub/rsconvert.safetensors"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--resolutions", "x"], "x"),
        (["--examples", "-1"], "examples is -1"),
        (["--class-names", "none.txt"], "none.txt can't be read"),
        (["--baseline", "network=run/best.safetensors"], "network"),
        (["-o", "missing/x.html"], "missing"),
        (["-o", "run/summary.csv"], "--force"),
    ],
)
def test_a_mistake_is_one_line(place: Path, options: list[str], words: str) -> None:
    result = run("report", "run", *OPTIONS, *options)
    assert result.exit_code == 1, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (place / "report.html").exists()
