"""finetune and compare: what their options reach, what they print, how they go on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file

from rsconvert.checkpoint import read_metadata, save
from rsconvert.cli import main
from rsconvert.models import create_model
from rsconvert.study.comparison.methods import KNOWN
from rsconvert.surgery import make_switchable

SMALL = ("--epochs", 1, "--batch-size", 4, "--workers", 0, "--device", "cpu", "--set", "warmup_epochs=0")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of two resolutions and images of two classes."""
    base, rng = tmp_path_factory.mktemp("training"), np.random.default_rng(0)
    for split, name, index in [(s, n, i) for s in ("train", "val") for n in "ab" for i in range(6)]:
        file = base / "images" / split / name / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(file)
    torch.manual_seed(0)
    save(make_switchable(create_model("test_resnet", num_classes=2), (48, 32)), base / "net.safetensors")
    return base


def finetune(place: Path, output: Path, *options: object) -> Result:
    return run("finetune", place / "net.safetensors", "--data", place / "images", "--output", output, *SMALL, *options)


def config_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "config.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--low-memory", "--labels", "none"), {"low_memory": True, "labels": "none"}),
        (("--views", "all"), {"views": "all"}),
        (("--grad-checkpointing",), {"grad_checkpointing": True}),
        (("--train", "bn", "--distill", "vanilla"), {"train": "bn", "distill": "vanilla"}),
        (("--seed", 3, "--lr", 0.01, "--amp", "bf16"), {"seed": 3, "lr": 0.01, "amp": "bf16"}),
        (("--set", "ema_decay=0.9", "--set", "rand_augment=rand-m5"), {"ema_decay": 0.9, "rand_augment": "rand-m5"}),
        (("--set", "color_jitter=0.4", "--set", "layer_decay=0.7"), {"color_jitter": 0.4, "layer_decay": 0.7}),
        (("--set", "grad_accum_steps=2", "--set", "cutmix=1"), {"grad_accum_steps": 2, "cutmix": 1.0}),
    ],
)
def test_options_reach_the_run(
    place: Path, tmp_path: Path, options: tuple[object, ...], wanted: dict[str, Any]
) -> None:
    result = finetune(place, tmp_path / "run", *options)
    assert result.exit_code == 0, result.output
    config = config_of(tmp_path / "run")
    assert {name: config[name] for name in wanted} == wanted


def test_the_best_epoch_that_is_told_is_that_of_the_file(place: Path, tmp_path: Path) -> None:
    told = finetune(place, tmp_path / "run", "--epochs", 3, "--lr", 0.05)
    epoch = read_metadata(tmp_path / "run" / "best.safetensors").fields["training"]["epoch"]
    assert f"best: epoch {epoch} of " in told.stdout
    again = finetune(place, tmp_path / "run", "--epochs", 3, "--lr", 0.05, "--resume", "--json")
    assert json.loads(again.stdout)["best"] == epoch


def test_a_checkpoint_of_the_same_function_teaches(place: Path, tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(
        "from torch import nn\n\n\n"
        "def build(width=4):\n"
        "    layers = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1), nn.Flatten()\n"
        "    return nn.Sequential(*layers, nn.Linear(width, 2))\n"
    )
    name = f"{tmp_path / 'my.py'}:build"
    for width in (4, 8):
        model = create_model(name, model_kwargs={"width": width})
        save(make_switchable(model, (48, 32)), tmp_path / f"w{width}.safetensors")
    images = ("--data", place / "images", "--output", tmp_path / "run")
    words = ("finetune", tmp_path / "w4.safetensors", *images, *SMALL, "--teacher", tmp_path / "w8.safetensors")
    result = run(*words, "--model", name, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["best"] == 1
    (line,) = result.stderr.splitlines()[:1]
    assert line.startswith(f"note: {name} is a function of your own")


def test_a_class_map_finetunes_a_network_that_knows_more(place: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save(make_switchable(create_model("test_resnet", num_classes=7), (48, 32)), tmp_path / "seven.safetensors")
    (tmp_path / "map.txt").write_text("a 5\nb 2\n")
    words = [
        "finetune",
        tmp_path / "seven.safetensors",
        "--data",
        place / "images",
        "--output",
        tmp_path / "run",
        *SMALL,
    ]
    assert "--class-map" in run(*words).stderr
    result = run(*words, "--class-map", tmp_path / "map.txt", "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["epochs"]
    assert row["top5_48"] == 100.0
    assert run("inspect", tmp_path / "run", "--json").stdout.count("class_names") <= 1


def test_a_dry_run_prints_and_writes_nothing(place: Path, tmp_path: Path) -> None:
    result = finetune(place, tmp_path / "run", "--dry-run", "--recipe", "paper-resnet")
    assert result.exit_code == 0, result.output
    assert "recipe paper-resnet: batch_size=256" in result.stderr
    lines = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert (lines["steps"], lines["lr"], lines["flip"], lines["batch_size"]) == ("3", "0.1", "per-view", "4")
    assert lines["memory (MiB)"].startswith("weights ")
    facts = json.loads(finetune(place, tmp_path / "run", "--dry-run", "--json").stdout)
    assert facts["memory"]["total"] > 0
    assert not (tmp_path / "run").exists()


def test_a_run_that_stops_early_says_why(place: Path, tmp_path: Path) -> None:
    frozen = ("--train", "head", "--lr", "1e-12", "--epochs", 4, "--set", "patience=1")
    result = finetune(place, tmp_path / "run", *frozen)
    assert result.exit_code == 0, result.output
    why = "after epoch 2 of 4: no better mean top-1 since epoch 1, with patience 1"
    assert result.stdout.splitlines()[-1] == f"stopped {why}"
    again = json.loads(finetune(place, tmp_path / "run", *frozen, "--resume", "--json").stdout)
    assert (again["stopped"], len(again["epochs"])) == (why, 2)


def test_a_run_is_resumed_and_differences_are_told(place: Path, tmp_path: Path) -> None:
    first = finetune(place, tmp_path / "run", "--resume")
    assert first.exit_code == 0, first.output
    before = load_file(tmp_path / "run" / "last.safetensors")
    again = finetune(place, tmp_path / "run", "--resume", "--json")
    assert len(json.loads(again.stdout)["epochs"]) == 1
    assert all(torch.equal(v, before[k]) for k, v in load_file(tmp_path / "run" / "last.safetensors").items())
    refused = finetune(place, tmp_path / "run")
    assert (refused.exit_code, "--resume" in refused.stderr) == (1, True)
    other = finetune(place, tmp_path / "run", "--resume", "--epochs", 2)
    assert other.exit_code == 1
    assert other.stderr.splitlines()[-1].startswith("Error: the run to resume differs: epochs was 1 and is 2; ")
    forced = finetune(place, tmp_path / "run", "--resume", "--epochs", 2, "--force", "--json")
    assert len(json.loads(forced.stdout)["epochs"]) == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ("--recipe", "imagenet"),
            "recipe is 'imagenet'; finetune, paper-resnet, paper-lq-resnet, paper-mobilenetv2 are accepted",
        ),
        (("--sync-bn",), "sync_bn is on with 1 process(es) on cpu"),
        (("--teacher", "no_such_model"), "no_such_model"),
        (("--labels", "none", "--distill", "none"), "distill is none"),
        (("--set", "rand_augment=strong"), "rand_augment"),
        (("--class-map", "nowhere.txt"), "class map nowhere.txt can't be read"),
    ],
)
def test_what_does_not_fit_is_one_line(place: Path, tmp_path: Path, options: tuple[object, ...], told: str) -> None:
    result = finetune(place, tmp_path / "run", *options)
    assert result.exit_code == 1, result.output
    assert told in result.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of three resolutions and images of two classes."""
    base, rng = tmp_path_factory.mktemp("comparison"), np.random.default_rng(0)
    for split, name, index in [(s, n, i) for s in ("train", "val") for n in "ab" for i in range(4)]:
        file = base / "images" / split / name / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(file)
    torch.manual_seed(0)
    save(make_switchable(create_model("test_resnet", num_classes=2), (48, 40, 32)), base / "net.safetensors")
    return base


def compare(three: Path, output: Path, *options: object) -> Result:
    fixed = (three / "net.safetensors", "--data", three / "images", "--output", output, *SMALL)
    return CliRunner().invoke(main, [str(word) for word in ("compare", *fixed, *options)])


def test_a_dry_run_lists_the_runs_and_writes_nothing(three: Path, tmp_path: Path) -> None:
    options = ("--dry-run", "--methods", "inets, rsnet", "--subsets", "48+32", "--seeds", "4,2", "--lr", 0.3)
    result = compare(three, tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines[2:7]] == [f"{name}/seed-4" for name in ("inets-48", "inets-40", "inets-32")] + [
        "rsnet/seed-4",
        "parallel-48+32/seed-4",
    ]
    assert [line[2] for line in lines[2:7]] == ["0.3", "0.3", "0.3", "0.1", "0.15"]
    facts = json.loads(
        compare(three, tmp_path / "out", *options, "--same-lr", "--crop-area", "0.08,1", "--json").stdout
    )
    assert {run["lr"] for run in facts["runs"]} == {0.3}
    assert (len(facts["runs"]), facts["settings"]["epochs"]) == (20, 1)
    assert facts["runs"][5]["folder"] == "inets-crop-0.08-1-48/seed-4"
    assert not (tmp_path / "out").exists()


def test_the_same_command_reads_what_is_done(three: Path, tmp_path: Path) -> None:
    options = ("--methods", "parallel,shared-bn", "--seeds", "0", "--resolutions", "32:48:4")
    first = compare(three, tmp_path / "out", *options)
    assert first.exit_code == 0, first.output
    assert first.stdout.splitlines()[0] == "| top-1 (%) at pixels | 48 | 44 | 40 | 36 | 32 | mean |"
    assert first.stdout.splitlines()[-1] == f"{tmp_path / 'out'}: report.md, its figures and numbers"
    assert "run 2/2, shared-bn/seed-0: to do\n" in first.stderr
    assert first.stderr.count("epoch 1/1  loss per view ") == 2
    again = compare(three, tmp_path / "out", *options, "--json")
    assert "epoch 1/1" not in again.stderr
    assert "run 2/2, shared-bn/seed-0: done" in again.stderr
    facts = json.loads(again.stdout)
    assert facts == json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(facts["methods"]) == {"parallel", "shared-bn"}
    assert "rsconvert" in (tmp_path / "out" / "report.md").read_text().split("```sh\n")[1]
    other = compare(three, tmp_path / "out", *options, "--lr", 0.1)
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
def test_a_comparison_refuses_in_one_line(three: Path, tmp_path: Path, options: tuple[object, ...], told: str) -> None:
    result = compare(three, tmp_path / "out", *options)
    assert result.exit_code == 1, result.output
    assert told in result.stderr.splitlines()[-1]
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_interruption_is_one_line_and_says_how_to_go_on(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("its state after epoch 1 of 2 is kept")

    monkeypatch.setattr("rsconvert.study.comparison.runs.finetune", interrupted)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # which would outlive the test
    result = compare(three, tmp_path / "out")
    assert result.exit_code == 1
    wanted = "Error: interrupted; its state after epoch 1 of 2 is kept. Go on with the same command."
    assert result.stderr.splitlines()[-1] == wanted


def test_the_help_names_every_method() -> None:
    # A name with a hyphen may be broken there.
    text = "".join(CliRunner().invoke(main, ["compare", "--help"]).stdout.split())
    assert f"Of{','.join(KNOWN)}." in text
