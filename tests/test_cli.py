"""The commands end to end on tiny networks and drawn images; bad input gives one line, status 1, and loses nothing."""

import importlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file, save_file

import rsconvert
from rsconvert.cli import main

NAME = "test_efficientnet"
# What makes efficientformer_l1, which takes one size alone, a small network.
THIN = ("--model-kwargs", "embed_dims=(16,16,32,32)", "--model-kwargs", "depths=(1,1,1,4)")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def refused(*arguments: object) -> str:
    """Run a command that must fail; return its one line."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    assert "Traceback" not in result.output
    return line


def draw_images(folder: Path, classes: tuple[str, ...] = ("a", "b"), count: int = 8) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in classes:
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(place / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wrapped") / "net.safetensors"
    done("wrap", NAME, "--no-pretrained", "--resolutions", "32,48", "--num-classes", 2, "-o", path)
    return path


@pytest.fixture(scope="module")
def run_dir(checkpoint: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    options = ["--epochs", 1, "--batch-size", 4, "--workers", 0, "--set", "warmup_epochs=0", "--device", "cpu"]
    rows = done("finetune", checkpoint, "--data", images, "--output", path, *options)["epochs"]
    assert [row["epoch"] for row in rows] == [1]
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_wrap_reports_what_it_did(tmp_path: Path) -> None:
    path = tmp_path / "r18.safetensors"
    facts = done("wrap", "resnet18", "--no-pretrained", "--resolutions", "64,96", "-o", path)
    assert (facts["batchnorms"], facts["converted"], facts["refused"]) == (20, 20, [])
    assert (facts["parameters_before"], facts["parameters"]) == (11_689_512, 11_689_512 + 9_600)
    assert {r: row["exact"] for r, row in facts["resolutions"].items()} == {"96": True, "64": True}
    assert facts["checkpoint"] == str(path)
    assert rsconvert.load(path).resolutions == (96, 64)


def test_wrap_writes_beside_the_caller_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("wrap", NAME, "--no-pretrained", "--resolutions", "48,32")
    assert result.exit_code == 0, result.output
    assert "paths: 48 exact, 32 exact" in result.stdout
    assert list(files(tmp_path)) == [f"{NAME}.rs.safetensors"]


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert done("wrap", NAME, "--no-pretrained", "--resolutions", "48,32", "--dry-run")["checkpoint"] is None
    assert files(tmp_path) == {}


def test_a_dry_run_prints_a_line_for_each_batchnorm(tmp_path: Path) -> None:
    arguments = ("wrap", NAME, "--no-pretrained", "--resolutions", "48,32", "--dry-run")
    report = done(*arguments)["report"]
    assert {record["found"] for record in report["batchnorms"]} == {"graph"}
    lines = run(*arguments).stdout.splitlines()
    assert lines[0].split() == ["BatchNorm", "class", "channels", "found", "by", "producer"]
    assert lines[1].split() == ["bn1", "BatchNormAct2d", "24", "graph", "conv_stem"]
    assert "paths: 48 exact, 32 exact" in lines


def test_a_dry_run_of_what_is_refused_prints_the_report_first() -> None:
    arguments = ("wrap", "efficientformer_l1", *THIN, "--no-pretrained", "--resolutions", "224,64", "--dry-run")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "works at: 224" in result.stdout
    assert "refused: 64: stages.3.blocks.4.token_mixer fails at timm/models/efficientformer.py:" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("Error: efficientformer_l1 does not work at 64: ")
    facts = json.loads(run(*arguments, "--json").stdout)
    assert facts["resolutions"] == {"224": {"works": True}, "64": {"works": False}}
    assert facts["refused"] == [64]


@pytest.mark.parametrize(
    ("name", "thin", "words"),
    [
        ("convnext_atto", "drop_rate=0.0", "convnext_atto has no BatchNorm to convert"),
        ("halonet26t", "width_factor=0.25", "of the sizes tried it works at 512, 256. Choose among these."),
        ("efficientformer_l1", "embed_dims=(16,16,32,32)", "of the sizes tried it works at 224. Choose among these."),
    ],
)
def test_what_cannot_switch_is_refused_before_its_weights_are_fetched(
    name: str, thin: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("timm.models._builder.load_pretrained", fetched)
    assert words in refused("wrap", name, "--model-kwargs", thin, "--resolutions", "160,96")


def test_wrap_loads_a_backbone_and_starts_its_classifier_at_zero(tmp_path: Path) -> None:
    torch.manual_seed(1)
    backbone = {k: v for k, v in timm.create_model(NAME).state_dict().items() if not k.startswith("classifier")}
    save_file(backbone, tmp_path / "backbone.safetensors")
    path = tmp_path / "net.safetensors"
    options = [
        "--weights",
        tmp_path / "backbone.safetensors",
        "--num-classes",
        7,
        "--mean",
        "0.5,0.5,0.5",
        "--std",
        "0.25,0.5,0.5",
    ]
    facts = done("wrap", NAME, *options, "--resolutions", "48,32", "--crop-pct", "0.9", "-o", path)
    assert facts["new_classifier"] == ["classifier.weight", "classifier.bias"]
    assert (facts["mean"], facts["std"], facts["crop_pct"]) == ([0.5, 0.5, 0.5], [0.25, 0.5, 0.5], 0.9)
    written = load_file(path)
    assert not written["classifier.weight"].any()
    assert all(torch.equal(written[k], v) for k, v in backbone.items())


def test_a_network_of_ones_own_needs_its_function_again(tmp_path: Path, images: Path) -> None:
    source = tmp_path / "mine.py"
    source.write_text(
        "from torch import nn\n"
        "def build(width=4):\n"
        "    body = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1), nn.Flatten()\n"
        "    return nn.Sequential(*body, nn.Linear(width, 2))\n"
    )
    path = tmp_path / "mine.safetensors"
    done("wrap", f"{source}:build", "--model-kwargs", "width=6", "--resolutions", "32,16", "-o", path)
    assert "--model" in refused("evaluate", path, "--data", images)
    facts = done("evaluate", path, "--data", images, "--model", f"{source}:build", "--workers", 0)
    assert list(facts["resolutions"]) == ["32", "16"]


def test_finetune_leaves_a_run_folder(run_dir: Path) -> None:
    kept = ["best.safetensors", "config.json", "last.safetensors", "state/000000001.safetensors", "summary.csv"]
    assert sorted(files(run_dir)) == kept
    header, row = (run_dir / "summary.csv").read_text().splitlines()
    assert {"epoch", "loss", "lr", "score_48", "score_32", "top1_48", "top5_32", "images_per_second"} <= set(
        header.split(",")
    )
    assert row.startswith("1,")


def test_settings_come_from_a_file_and_options_override(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("epochs = 3\nbatch_size = 4\nworkers = 0\nwarmup_epochs = 0\ncrop_area = [0.5, 1.0]\n")
    given = [
        "--config",
        config,
        "--set",
        "weight_decay=0.01",
        "--epochs",
        1,
        "--distill",
        "vanilla",
        "--set",
        "crop=per-view",
    ]
    done("finetune", checkpoint, "--data", images, "--output", tmp_path / "run", *given)
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    wanted = {
        "workers": 0,
        "epochs": 1,
        "batch_size": 4,
        "weight_decay": 0.01,
        "distill": "vanilla",
        "crop": "per-view",
        "crop_area": [0.5, 1.0],
    }
    assert {key: kept[key] for key in wanted} == wanted


def test_evaluate_measures_trained_and_interpolated_resolutions(run_dir: Path, images: Path) -> None:
    facts = done("evaluate", run_dir, "--data", images, "--resolutions", "32,40,48", "--workers", 0)
    assert facts["count"] == 16
    assert {r: row["interpolated"] for r, row in facts["resolutions"].items()} == {"48": False, "40": True, "32": False}
    assert {"top1", "top5"} < set(facts["ensemble"])
    assert "40" in run("evaluate", run_dir, "--data", images, "--resolutions", "40", "--workers", 0).stdout


def test_evaluate_takes_a_network_that_knows_more_classes(images: Path, tmp_path: Path) -> None:
    path, names = tmp_path / "net.safetensors", tmp_path / "map.csv"
    done("wrap", NAME, "--no-pretrained", "--resolutions", "48,32", "--num-classes", 9, "-o", path)
    assert "--class-map" in refused("evaluate", path, "--data", images, "--workers", 0)
    names.write_text("b,0\na,8\n")
    facts = done("evaluate", path, "--data", images, "--class-map", names, "--workers", 0)
    assert {row["top5"] for row in facts["resolutions"].values()} == {100.0}
    names.write_text("b,0\n")
    assert "lacks 'a'" in refused("evaluate", path, "--data", images, "--class-map", names, "--workers", 0)


def test_inspect_tells_what_a_file_holds(run_dir: Path) -> None:
    facts = done("inspect", run_dir)
    assert (facts["architecture"], facts["resolutions"], facts["class_names"]) == (NAME, [48, 32], ["a", "b"])
    assert "resolutions: 48, 32" in run("inspect", run_dir).stdout


def test_export_keeps_a_subset(run_dir: Path, tmp_path: Path) -> None:
    done("export", run_dir, "--resolutions", "32", "-o", tmp_path / "small.safetensors")
    net, whole = (
        rsconvert.load(tmp_path / "small.safetensors").eval(),
        rsconvert.load(run_dir / "best.safetensors").eval(),
    )
    x = torch.rand(2, 3, 32, 32)
    assert net.resolutions == (32,)
    assert torch.equal(net(x), whole(x))


@pytest.mark.parametrize("resolution", [32, 40])
def test_export_writes_a_plain_timm_folder(run_dir: Path, tmp_path: Path, resolution: int) -> None:
    done("export", run_dir, "--format", "timm", "--resolution", resolution, "-o", tmp_path / "plain")
    plain = timm.create_model(f"local-dir:{tmp_path / 'plain'}", pretrained=True).eval()
    x = torch.rand(2, 3, resolution, resolution)
    assert torch.equal(plain(x), rsconvert.load(run_dir / "best.safetensors").eval().at(resolution)(x))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet5o"], ["resnet5o", "resnet50"]),
        (["torchvision/resnet1"], ["torchvision/resnet1"]),
        (["convnext_atto"], ["no BatchNorm"]),
        ([NAME, "--resolutions", "224,224"], ["224 twice"]),
        ([NAME, "--resolutions", "0"], ["0", "positive"]),
        ([NAME, "--resolutions", "-32"], ["-32", "positive"]),
        ([NAME, "--resolutions", "abc"], ["abc"]),
        ([NAME, "--resolutions", ""], ["resolutions"]),
        ([NAME, "--resolutions", "--5,²"], ["--5"]),
        ([NAME, "--model-kwargs", "x={[]:1}"], ["x"]),
        ([NAME, "-o", ""], ["output is empty"]),
        ([NAME, "--dry-run", "--force"], ["--force", "no effect"]),
        (["efficientformer_l1", "--resolutions", "64", *THIN], ["64", "fails"]),
        ([NAME, "--model-kwargs", "no_such=1"], ["no_such"]),
        ([NAME, "--model-kwargs", "depth"], ["KEY=VALUE"]),
        ([NAME, "--model-kwargs", "checkpoint_path=x"], ["checkpoint_path"]),
        ([NAME, "--mean", "1,2"], ["mean"]),
        ([NAME, "--mean", "a,b,c"], ["mean"]),
        ([NAME, "--interpolation", "cubic"], ["cubic", "bicubic"]),
        ([NAME, "--crop-pct", "0"], ["crop_pct"]),
        ([NAME, "--crop-pct", "wide"], ["crop_pct is wide", "224=0.95"]),
        ([NAME, "--crop-pct", "48=0.9,48=1"], ["48=0.9,48=1", "repeat"]),
        ([NAME, "--crop-pct", "224=0.9"], ["224 0.9", "48, 32"]),
        ([NAME, "--weights", "missing.safetensors"], ["missing.safetensors"]),
        (["missing.py:build"], ["missing.py"]),
    ],
)
def test_wrap_refuses(arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weightless = [] if "--weights" in arguments else ["--no-pretrained"]
    line = refused(
        "wrap", *arguments, *weightless, *([] if "--resolutions" in arguments else ["--resolutions", "48,32"])
    )
    assert [word for word in words if word not in line] == []
    assert files(tmp_path) == {}


def test_no_network_for_pretrained_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, *, pretrained: bool, **arguments: Any) -> torch.nn.Module:
        if pretrained:
            raise OSError("Network is unreachable\nat line 2")
        return create(name, **arguments)

    monkeypatch.setattr("timm.create_model", offline)
    monkeypatch.chdir(tmp_path)
    line = refused("wrap", "resnet18", "--pretrained")
    assert "resnet18" in line
    assert "--no-pretrained" in line
    assert files(tmp_path) == {}


def test_what_exists_is_kept_without_force(checkpoint: Path, run_dir: Path, images: Path, tmp_path: Path) -> None:
    before = files(checkpoint.parent), files(run_dir)
    assert "--force" in refused("wrap", NAME, "--no-pretrained", "--resolutions", "64,32", "-o", checkpoint)
    assert "--force" in refused("export", run_dir, "-o", checkpoint)
    assert "--force" in refused("finetune", checkpoint, "--data", images, "--output", run_dir)
    assert (files(checkpoint.parent), files(run_dir)) == before
    done("export", run_dir, "-o", tmp_path / "x.safetensors")
    done("export", run_dir, "-o", tmp_path / "x.safetensors", "--force")


def broken_files(folder: Path, checkpoint: Path) -> Iterator[Path]:
    whole = checkpoint.read_bytes()
    for name, data in {
        "cut": whole[: len(whole) // 2],
        "stub": whole[:5],
        "empty": b"",
        "photo": b"\xff\xd8\xff\xe0" + b"\x00" * 500,
    }.items():
        path = folder / f"{name}.safetensors"
        path.write_bytes(data)
        yield path
    save_file(timm.create_model(NAME).state_dict(), folder / "plain.safetensors")
    yield folder / "plain.safetensors"
    yield folder / "missing.safetensors"


def test_a_broken_or_foreign_checkpoint_is_refused_by_every_command(
    checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for path in broken_files(tmp_path / "in", checkpoint):
        for command in (
            ["finetune", path, "--data", images, "--output", tmp_path / "run"],
            ["evaluate", path, "--data", images],
            ["export", path, "-o", tmp_path / "out.safetensors"],
            ["inspect", path],
        ):
            assert path.name in refused(*command)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def finetune_refused(checkpoint: Path, data: object, folder: Path, *options: object) -> str:
    return refused(
        "finetune", checkpoint, "--data", data, "--output", folder / "run", "--workers", 0, "--batch-size", 2, *options
    )


def test_data_that_does_not_fit_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    assert "nowhere" in finetune_refused(checkpoint, tmp_path / "nowhere", tmp_path)
    three = draw_images(tmp_path / "three", ("a", "b", "c"), 2)
    assert "--num-classes 3" in finetune_refused(checkpoint, three, tmp_path)
    (three / "val" / "c").rename(three / "val" / "d")
    assert "c" in finetune_refused(checkpoint, three, tmp_path)
    empty = draw_images(tmp_path / "empty", ("a", "b"), 2)
    (empty / "train" / "hollow").mkdir()
    assert "hollow" in finetune_refused(checkpoint, empty, tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named(checkpoint: Path, tmp_path: Path, workers: int) -> None:
    data = draw_images(tmp_path / "images", ("a", "b"), 4)
    bad = data / "train" / "b" / "2.png"
    bad.write_bytes(bad.read_bytes()[:300])
    assert str(bad) in finetune_refused(checkpoint, data, tmp_path, "--workers", workers)
    bad = data / "val" / "a" / "1.png"
    bad.write_bytes(b"no image")
    assert str(bad) in refused("evaluate", checkpoint, "--data", data, "--workers", workers)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "lerning_rate=1"], ["lerning_rate"]),
        (["--set", "weight_decay=many"], ["weight_decay", "many"]),
        (["--lr", "-1"], ["lr", "-1"]),
        (["--epochs", "0"], ["epochs"]),
        (["--config", "missing.toml"], ["missing.toml"]),
        (["--device", "abacus"], ["abacus"]),
        (["--amp", "fp16", "--device", "cpu"], ["fp16"]),
        (["--batch-size", "1000"], ["1000"]),
        (["--workers", "-1"], ["workers"]),
    ],
)
def test_finetune_refuses_settings(
    checkpoint: Path, images: Path, tmp_path: Path, options: list[str], words: list[str]
) -> None:
    line = refused("finetune", checkpoint, "--data", images, "--output", tmp_path / "run", *options)
    assert [word for word in words if word not in line] == []
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    options = ["--lr", "1e30", "--epochs", 2, "--set", "warmup_epochs=0", "--set", "alpha_lr=1e30"]
    line = finetune_refused(checkpoint, images, tmp_path, *options)
    assert "finite" in line
    assert "1e+30" in line


@pytest.mark.parametrize("value", ["0", "abc", "", "32,32"])
def test_evaluate_refuses_resolutions(checkpoint: Path, images: Path, value: str) -> None:
    line = refused("evaluate", checkpoint, "--data", images, "--resolutions", value)
    assert "resolution" in line
    assert value.split(",")[0] in line


def test_export_refuses_options_without_effect(run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "resolution" in refused("export", run_dir, "--format", "timm", "-o", out)
    assert "resolution" in refused("export", run_dir, "--resolution", 32, "-o", out)
    assert "resolutions" in refused(
        "export", run_dir, "--format", "timm", "--resolution", 32, "--resolutions", "32", "-o", out
    )
    assert "96" in refused("export", run_dir, "--resolutions", "96", "-o", out)
    assert "torchvision" in refused(
        "export", run_dir, "--format", "torchvision", "--resolution", 32, "-o", tmp_path / "x.pth"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_old_file(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    old = tmp_path / "net.safetensors"
    old.write_bytes(checkpoint.read_bytes())
    monkeypatch.setattr("rsconvert.checkpoint.tensors.os.fsync", full)
    assert "No space left" in refused("export", checkpoint, "-o", old, "--force")
    assert files(tmp_path) == {"net.safetensors": checkpoint.read_bytes()}


def test_ctrl_c_is_one_line(checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("rsconvert.training.run.epochs"), "measure", interrupted)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the command would ignore further ones, here for good
    assert "interrupted" in finetune_refused(checkpoint, images, tmp_path, "--epochs", 1, "--set", "warmup_epochs=0")


def test_one_more_ctrl_c_on_the_way_out_hides_nothing(
    checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed_twice(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt("its state is kept") from None
        finally:
            raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("rsconvert.training"), "finetune", pressed_twice)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    line = finetune_refused(checkpoint, images, tmp_path, "--epochs", 1, "--set", "warmup_epochs=0")
    assert line.endswith("interrupted; its state is kept. Go on with --resume.")


def test_debug_shows_the_traceback() -> None:
    result = run("--debug", "inspect", "missing.safetensors")
    assert isinstance(result.exception, rsconvert.CheckpointError)


def test_a_wrong_option_is_a_usage_error() -> None:
    assert run("wrap").exit_code == 2
    assert run("wrap", NAME, "--no-such-option").exit_code == 2


@pytest.mark.parametrize(
    ("word", "own"),
    [("train", "finetune"), ("convert", "wrap"), ("info", "inspect"), ("val", "evaluate"), ("validate", "evaluate")],
)
def test_the_commands_of_other_tools_lead_to_ours(word: str, own: str) -> None:
    result = run(word, "x")
    assert result.exit_code == 2
    assert f"No such command '{word}'. Did you mean '{own}'" in result.stderr


def test_a_result_that_can_not_be_printed_is_one_line(checkpoint: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "rsconvert", "inspect", str(checkpoint)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_network_of_four_channels_has_no_use_for_photos(images: Path, tmp_path: Path) -> None:
    path, given = tmp_path / "four.safetensors", ("--no-pretrained", "--model-kwargs", "in_chans=4")
    done("wrap", NAME, *given, "--resolutions", "48", "-o", path)
    for command in ("evaluate", "calibrate"):
        options = () if command == "evaluate" else ("--resolutions", "48", "-o", tmp_path / "calibrated.safetensors")
        assert "takes images of 4 channels; a photo has 3" in refused(command, path, "--data", images, *options)
    assert "mean is 0.5; a number for each channel" in refused(
        "wrap", NAME, *given, "--mean", "0.5", "-o", tmp_path / "x"
    )


def test_a_network_of_one_channel_learns_from_grey_photos(images: Path, tmp_path: Path) -> None:
    path, given = tmp_path / "grey.safetensors", ("--no-pretrained", "--model-kwargs", "in_chans=1")
    classes = ("--num-classes", 2, "--resolutions", "48,32")
    facts = done("wrap", NAME, *given, *classes, "--std", "0.25", "-o", path)
    assert (facts["mean"], facts["std"]) == ([pytest.approx(0.449)], [0.25])  # the average of timm's three
    options = ("--epochs", 1, "--batch-size", 4, "--workers", 0, "--set", "warmup_epochs=0", "--device", "cpu")
    done("finetune", path, "--data", images, "--output", tmp_path / "run", *options)
    assert done("evaluate", tmp_path / "run", "--data", images, "--workers", 0)["count"] == 16
    net = rsconvert.load(tmp_path / "run")
    photo = next((images / "val").rglob("*.png"))
    found = done("predict", tmp_path / "run", photo)["images"][0]["classes"]
    with Image.open(photo) as picture:  # 40 pixels to 48 / 0.875 = 54, of which the central 48 remain
        view = picture.convert("L").resize((54, 54), Image.Resampling.BILINEAR).crop((3, 3, 51, 51))
    pixels = (torch.from_numpy(np.asarray(view, np.float32)) / 255 - 0.449) / 0.25
    with torch.no_grad():
        expected = net.at(48)(pixels[None, None]).softmax(1)[0]
    assert {row["index"]: pytest.approx(row["probability"], abs=1e-3) for row in found} == dict(enumerate(expected))
    assert torch.allclose(net.preprocess(photo, 48)[0, 0], pixels, atol=1.01 / 255 / 0.25)


def test_broken_images_pass_up_to_a_number(
    run_dir: Path, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    for split in ("train", "val"):
        next((folder / split).rglob("0.png")).write_bytes(b"")
    broken = next((folder / "val").rglob("0.png"))
    read = ("--data", folder, "--workers", 0)
    assert f"{broken} can't be decoded (the file is empty)" in refused("evaluate", run_dir, *read)
    assert done("evaluate", run_dir, *read, "--skip-broken", 1)["count"] == 15
    assert caplog.text.count(f"note: skipped: {broken} can't be decoded") == 1
    shown = ("--resolutions", "32", "-o", tmp_path / "r.html")
    assert done("report", run_dir, *read, "--skip-broken", 1, *shown)["count"] == 15
    assert len(done("predict", run_dir, folder / "val", "--skip-broken", 1)["images"]) == 15
    calibrated = ("--skip-broken", 1, "--images", 16, "-o", tmp_path / "calibrated.safetensors")
    assert done("calibrate", run_dir, *read, *calibrated)["images"] == 15
    options = ("--output", tmp_path / "run", "--epochs", 1, "--batch-size", 4, "--set", "warmup_epochs=0")
    line = refused("finetune", run_dir, *read, *options, "--set", "skip_broken=1")
    assert f"{broken} can't be decoded" in line
    assert "1 before it were skipped, as many as --skip-broken (skip_broken) lets pass" in line
    facts = done("finetune", run_dir, *read, *options, "--set", "skip_broken=2", "--dry-run")
    assert (facts["train_images"], facts["val_images"]) == (15, 15)


def test_what_measures_takes_a_split(run_dir: Path, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(images / "val", folder / "test")
    for one in sorted((folder / "test").rglob("*.png"))[::2]:
        one.unlink()
    assert "has no folder val/" in refused("report", run_dir, "--data", folder, "-o", tmp_path / "r.html")
    read = ("--data", folder, "--split", "test", "--workers", 0)
    assert done("report", run_dir, *read, "--resolutions", "32", "-o", tmp_path / "r.html")["count"] == 8
    assert done("analyze", "pooling", run_dir, *read, "-o", tmp_path / "a")["images"] == 8
    assert done("cascade", run_dir, *read, "--resolutions", "48,32", "-o", tmp_path / "c.safetensors")
    assert done("benchmark", run_dir, *read, "--rounds", 1, "--forms", "plain")["costs"][0]["top1"] is not None
    assert "split is test without data" in refused("benchmark", run_dir, "--split", "test")


CALLS = {
    "models": ["models"],
    "inspect": ["inspect", "x"],
    "wrap": ["wrap", "x"],
    "export": ["export", "x", "-o", "y"],
    "importance": ["analyze", "importance", "x"],
}


@pytest.mark.parametrize("name", CALLS)
def test_a_command_that_runs_once_says_so(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = run(*CALLS[name])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: WORLD_SIZE is 2, so a launcher started 2 processes")
    assert f"; {name} runs in one, only finetune and evaluate share their work. Start it without" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_those_that_share_their_work_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for call in (["evaluate", "x", "--data", "y"], ["finetune", "x", "--data", "y", "--output", "z"]):
        result = run(*call)
        assert result.exit_code == 1
        assert "WORLD_SIZE" not in result.stderr


def test_help_is_given_anywhere_and_one_process_is_no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, call in CALLS.items():
        words = call[: call.index(name) + 1]
        assert run(*words, "--help").exit_code == 0
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert "WORLD_SIZE" not in run(*CALLS["inspect"]).stderr
