"""The compare command: what its options reach, what it prints, how it goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from rsconvert.checkpoint import save
from rsconvert.cli import main
from rsconvert.models import create_model
from rsconvert.study.comparison.plan import KNOWN
from rsconvert.surgery import make_switchable

SMALL = ("--epochs", 1, "--batch-size", 4, "--workers", 0, "--device", "cpu", "--set", "warmup_epochs=0")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of three resolutions and images of two classes."""
    base, rng = tmp_path_factory.mktemp("comparison"), np.random.default_rng(0)
    for split, name, index in [(s, n, i) for s in ("train", "val") for n in "ab" for i in range(4)]:
        file = base / "images" / split / name / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(file)
    torch.manual_seed(0)
    save(make_switchable(create_model("test_resnet", num_classes=2), (48, 40, 32)), base / "net.safetensors")
    return base


def compare(place: Path, output: Path, *options: object) -> Result:
    fixed = (place / "net.safetensors", "--data", place / "images", "--output", output, *SMALL)
    return CliRunner().invoke(main, [str(word) for word in ("compare", *fixed, *options)])


def test_a_dry_run_tells_the_runs_and_writes_nothing(place: Path, tmp_path: Path) -> None:
    options = ("--dry-run", "--methods", "inets, rsnet", "--subsets", "48+32", "--seeds", "4,2", "--lr", 0.3)
    result = compare(place, tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines[2:7]] == [f"{name}/seed-4" for name in ("inets-48", "inets-40", "inets-32")] + [
        "rsnet/seed-4",
        "parallel-48+32/seed-4",
    ]
    assert [line[2] for line in lines[2:7]] == ["0.3", "0.3", "0.3", "0.1", "0.15"]
    facts = json.loads(
        compare(place, tmp_path / "out", *options, "--same-lr", "--crop-area", "0.08,1", "--json").stdout
    )
    assert {run["lr"] for run in facts["runs"]} == {0.3}
    assert (len(facts["runs"]), facts["settings"]["epochs"]) == (20, 1)
    assert facts["runs"][5]["folder"] == "inets-crop-0.08-1-48/seed-4"
    assert not (tmp_path / "out").exists()


def test_the_same_command_reads_what_is_done(place: Path, tmp_path: Path) -> None:
    options = ("--methods", "parallel,shared-bn", "--seeds", "0", "--resolutions", "32:48:4")
    first = compare(place, tmp_path / "out", *options)
    assert first.exit_code == 0, first.output
    assert first.stdout.splitlines()[0] == "| top-1 (%) at pixels | 48 | 44 | 40 | 36 | 32 | mean |"
    assert first.stdout.splitlines()[-1] == f"{tmp_path / 'out'}: report.md, its figures and numbers"
    assert "run 2/2, shared-bn/seed-0: to do\n" in first.stderr
    assert first.stderr.count("epoch 1/1  loss ") == 2
    again = compare(place, tmp_path / "out", *options, "--json")
    assert "epoch 1/1" not in again.stderr
    assert "run 2/2, shared-bn/seed-0: done" in again.stderr
    facts = json.loads(again.stdout)
    assert facts == json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(facts["methods"]) == {"parallel", "shared-bn"}
    assert "rsconvert" in (tmp_path / "out" / "report.md").read_text().split("```sh\n")[1]
    other = compare(place, tmp_path / "out", *options, "--lr", 0.1)
    assert other.exit_code == 1
    assert "holds another comparison: lr was 0.000625 and is 0.1; " in other.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--methods", "rsnets"), "method 'rsnets' is unknown; near ones are rsnet, inets."),
        (("--methods", ""), "methods is empty"),
        (("--subsets", "48+x"), "subset 48+x has x, which the network does not switch to; 48, 40, 32 are accepted"),
        (("--seeds", "1,1"), "seeds is 1,1; one or more different ones are needed"),
        (("--seeds", "one"), "seed is 'one'; a whole number is accepted"),
        (("--crop-area", "0.5"), "crop_area is (0.5,)"),
        (("--resolutions", "48,48"), "resolutions has 48 twice"),
        (("--set", "distill=largest"), "distill is largest, which a comparison chooses for each run"),
        (("--set", "epoch=3"), "setting epoch is unknown; near ones are epochs"),
        (("--recipe", "paper"), "recipe is 'paper'"),
        (("--data", "nowhere"), "nowhere does not exist"),
        (("--class-map", "nowhere.txt"), "class map nowhere.txt can't be read"),
    ],
)
def test_what_does_not_fit_is_one_line(place: Path, tmp_path: Path, options: tuple[object, ...], told: str) -> None:
    result = compare(place, tmp_path / "out", *options)
    assert result.exit_code == 1, result.output
    assert told in result.stderr.splitlines()[-1]
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_interruption_is_one_line_and_says_how_to_go_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("its state after epoch 1 of 2 is kept")

    monkeypatch.setattr("rsconvert.study.comparison.runs.finetune", interrupted)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # which would outlive the test
    result = compare(place, tmp_path / "out")
    assert result.exit_code == 1
    wanted = "Error: interrupted; its state after epoch 1 of 2 is kept. Go on with the same command."
    assert result.stderr.splitlines()[-1] == wanted


def test_the_help_names_every_method() -> None:
    # A name with a hyphen may be broken there.
    text = "".join(CliRunner().invoke(main, ["compare", "--help"]).stdout.split())
    assert f"Of{','.join(KNOWN)}." in text
