"""wrap: weights of every kind; models: the table as a list, one model measured, one line for a mistake."""

import fnmatch
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
import torchvision
from click.testing import CliRunner, Result
from torch import nn

import rsconvert
from rsconvert.cli import main
from rsconvert.compatibility import read_table, totals


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 of two sets by the release's names; the second set's running means are all 7."""
    model = torchvision.models.resnet18(num_classes=3)
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    state = {"module.alpha": torch.tensor([0.5, 0.25])}
    for key, tensor in model.state_dict().items():
        owner, _, name = key.rpartition(".")
        if owner not in norms:
            state[f"module.{owner}.module.{name}"] = tensor
            continue
        state[f"module.{owner}.bn_0.{name}"] = tensor
        state[f"module.{owner}.bn_1.{name}"] = torch.full_like(tensor, 7) if name == "running_mean" else tensor
    path = tmp_path_factory.mktemp("release") / "best.pth.tar"
    torch.save({"epoch": 120, "arch": "parallel_resnet18", "state_dict": state}, path)
    return path


def wrapped(release: Path, *arguments: object) -> Result:
    sides = ("--resolutions", "64,32", "--num-classes", 3)
    return run("wrap", "torchvision/resnet18", "--rsnets", release, *sides, *arguments)


def test_a_checkpoint_of_the_release_is_wrapped(release: Path, tmp_path: Path) -> None:
    result = wrapped(release, "-o", tmp_path / "net.safetensors", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["mean"], facts["std"], facts["crop_pct"]) == ([0, 0, 0], [1, 1, 1], 0.875)
    net = rsconvert.load(tmp_path / "net.safetensors")
    assert net.at(64).bn1.running_mean.eq(0).all()
    assert net.at(32).bn1.running_mean.eq(7).all()
    assert net.alpha.tolist() == [0.5, 0.25]
    assert torch.equal(net.at(32).conv1.weight, torch.load(release)["state_dict"]["module.conv1.module.weight"])


def test_an_option_overrides_the_releases_preprocessing(release: Path, tmp_path: Path) -> None:
    result = wrapped(release, "--mean", "0.1,0.2,0.3", "-o", tmp_path / "net.safetensors")
    assert result.exit_code == 0, result.output
    preprocessing = rsconvert.load(tmp_path / "net.safetensors").source.preprocessing
    assert (preprocessing.mean, preprocessing.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pretrained",), "rsnets is"),
        (("--weights", "x.pth"), "rsnets is"),
        (("--resolutions", "64,48,32"), "2 BN sets"),
        (("--num-classes", 4), "fc.bias"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    release: Path, tmp_path: Path, arguments: tuple[object, ...], words: str
) -> None:
    result = wrapped(release, *arguments, "-o", tmp_path / "net.safetensors")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_private_classifiers_are_made_and_counted(tmp_path: Path) -> None:
    """96 inputs and 3 outputs: 291 numbers."""
    words = ("wrap", "test_resnet", "--no-pretrained", "--num-classes", 3, "--resolutions", "64,32")
    result = run(*words, "--private", "bn,head", "-o", tmp_path / "net.safetensors")
    assert result.exit_code == 0, result.output
    assert "private classifiers: fc; 291 parameters added" in result.stdout.splitlines()
    assert [name for name, _ in rsconvert.load(tmp_path / "net.safetensors").switchable_heads()] == ["fc"]
    facts = json.loads(run(*words, "--private", "bn,head", "--dry-run", "--json").stdout)
    assert (facts["heads"], facts["head_parameters"]) == (["fc"], 291)
    facts = json.loads(run(*words, "--dry-run", "--json").stdout)
    assert (facts["heads"], facts["head_parameters"]) == ([], 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--private", "bn,head"), "would add 257,000 parameters to the 356,196 of test_efficientnet; up to 10% is"),
        (("--private", "bn,stem"), "private names 'stem'; bn and head are accepted"),
        (("--large-head",), "large_head has no effect"),
    ],
)
def test_an_unusable_choice_of_what_is_private_is_one_line(arguments: tuple[str, ...], told: str) -> None:
    result = run("wrap", "test_efficientnet", "--no-pretrained", "--resolutions", "64,32", "--dry-run", *arguments)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert told in line


def test_a_large_classifier_is_accepted_when_told() -> None:
    words = ("wrap", "test_efficientnet", "--no-pretrained", "--resolutions", "64,32", "--dry-run", "--json")
    result = run(*words, "--private", "bn,head", "--large-head")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["head_parameters"] == 257_000


def test_every_classifier_has_that_of_the_release(release: Path, tmp_path: Path) -> None:
    result = wrapped(release, "--private", "bn,head", "-o", tmp_path / "net.safetensors")
    assert result.exit_code == 0, result.output
    net = rsconvert.load(tmp_path / "net.safetensors")
    wanted = torch.load(release)["state_dict"]["module.fc.module.weight"]
    assert [torch.equal(one.weight, wanted) for one in net.fc.sets] == [True, True]


def test_what_was_stripped_from_the_names_is_told(tmp_path: Path) -> None:
    state = rsconvert.create_model("test_resnet", num_classes=3).state_dict()
    torch.save({"state_dict": {f"model.{key}": value for key, value in state.items()}}, tmp_path / "last.ckpt")
    words = ("wrap", "test_resnet", "--num-classes", 3, "--resolutions", "64,32", "--weights", tmp_path / "last.ckpt")
    told = f"{tmp_path / 'last.ckpt'} (state_dict; without the prefix model.)"
    result = run(*words, "-o", tmp_path / "net.safetensors")
    assert result.exit_code == 0, result.output
    assert f"weights: {told}" in result.stdout.splitlines()
    assert result.stderr == ""
    assert json.loads(run(*words, "-o", tmp_path / "two.safetensors", "--json").stdout)["weights"] == told
    assert rsconvert.load(tmp_path / "net.safetensors").source.weights == told


def test_a_function_s_network_says_what_its_file_will_need(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.BatchNorm2d(3))\n"
    )
    result = run("wrap", f"{tmp_path / 'my.py'}:build", "--resolutions", "64,32", "-o", tmp_path / "net.safetensors")
    assert result.exit_code == 0, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"note: {tmp_path / 'my.py'}:build is a function of your own, so the network's file will")


def test_a_table_of_crops_reaches_the_file_and_its_exports(tmp_path: Path) -> None:
    file, folder = tmp_path / "net.safetensors", tmp_path / "timm"
    options = ("--no-pretrained", "--resolutions", "64,48,32", "--crop-pct", "64=1,32=0.75", "-o", file, "--json")
    assert json.loads(run("wrap", "test_efficientnet", *options).stdout)["crop_pct"] == [1.0, 0.875, 0.75]
    assert json.loads(run("inspect", file, "--json").stdout)["crop_pct"] == [1.0, 0.875, 0.75]
    run("export", file, "--format", "timm", "--resolution", 40, "-o", folder)
    assert json.loads((folder / "config.json").read_text())["pretrained_cfg"]["crop_pct"] == 0.8125


def models(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments])


def test_the_list_is_the_table() -> None:
    rows = [row for row in read_table().rows if fnmatch.fnmatchcase(row.name, "resnet1*")]
    result = models("resnet1*")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1 : len(rows) + 1]] == [[row.name, row.size_class] for row in rows]
    assert lines[-1].startswith(f"{len(rows)} models, ")
    assert f"timm {read_table().versions['timm']}" in lines[-1]


def test_json_is_one_object_with_the_totals() -> None:
    facts = json.loads(models("--json", "--class", "A").stdout)
    rows = tuple(row for row in read_table().rows if row.size_class == "A")
    assert facts["totals"] == totals(rows)
    assert [row["name"] for row in facts["models"]] == [row.name for row in rows]
    assert {row["class"] for row in facts["models"]} == {"A"}


def test_a_model_is_measured_at_once() -> None:
    result = models("--check", "test_efficientnet")
    assert result.exit_code == 0, result.output
    assert "exact in eval mode at 224, 192, 160, 128, 96" in result.stdout
    assert "a training step at 96: same output, gradients and statistics" in result.stdout
    facts = json.loads(models("--check", "convnext_atto", "--json").stdout)
    assert (facts["class"], facts["batchnorms"]) == ("none", 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet1888"], ["resnet1888", "resnet18"]),
        (["%*"], ["%*", "--check"]),
        (["--check", "resnet1888"], ["resnet1888", "resnet18"]),
        (["resnet*", "--check", "resnet18"], ["resnet18", "no effect"]),
        (["--check", "resnet18", "--class", "A"], ["resnet18", "no effect"]),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], words: list[str]) -> None:
    result = models(*arguments)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert [word for word in words if word not in line] == []


def test_the_list_is_shown_without_torch() -> None:
    code = "import sys; from rsconvert.cli import main; main(['models', 'resnet18'], standalone_mode=False)"
    code += "; print(sorted({'torch', 'timm', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_word_is_completed_without_torch() -> None:
    code = "import sys; from click.shell_completion import BashComplete; from rsconvert.cli import main\n"
    code += "found = BashComplete(main, {}, 'rsconvert', '').get_completions(['wrap'], 'resnet18')\n"
    code += "print([item.value for item in found][:1], sorted({'torch', 'timm', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['resnet18'] []"


def test_the_shell_completes_names_that_can_be_converted() -> None:
    (argument,) = [parameter for parameter in main.commands["wrap"].params if parameter.name == "model"]
    found = [item.value for item in argument.shell_complete(click.Context(main), "resnet1")]
    assert {"resnet18", "resnet101"} <= set(found)
    assert all(name.startswith("resnet1") for name in found)
    assert [i.value for i in argument.shell_complete(click.Context(main), "vit_base_patch16_224")] == []
