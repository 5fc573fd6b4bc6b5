"""What a CHECKPOINT may be: a file, the folder of a run, a published folder, one on the hub; defaults of options."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
import huggingface_hub
import pytest
from click.testing import CliRunner, Result

import rsconvert
from rsconvert import evaluation, export, runtime, study
from rsconvert.calibration.calibrate import Form
from rsconvert.checkpoint import file_of
from rsconvert.cli import main, options
from rsconvert.demo import run_demo
from rsconvert.errors import ConfigError
from rsconvert.evaluation.benchmark import FORMS


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, and with it published."""
    folder = tmp_path_factory.mktemp("hub")
    done("wrap", "test_resnet", "--no-pretrained", "--resolutions", "48,32", "-o", folder / "net.safetensors")
    rows = {"48": {"top1": 81.25, "top5": 99.0}, "32": {"top1": 70.0, "top5": 98.0}}
    (folder / "evaluate.json").write_text(json.dumps({"count": 16, "resolutions": rows, "ensemble": None}))
    done(
        *("export", folder / "net.safetensors", "--format", "hub", "-o", folder / "published"),
        *("--results", folder / "evaluate.json", "--licence", "mit"),
    )
    return folder


def test_a_published_folder_is_a_checkpoint(place: Path) -> None:
    card = (place / "published" / "README.md").read_text()
    assert "| 48 | 81.25 |" in card
    assert "license: mit" in card
    told = json.loads(done("inspect", place / "net.safetensors", "--json"))
    for text in (f"local-dir:{place / 'published'}", place / "published"):
        published = json.loads(done("inspect", text, "--json"))
        assert published == {**told, "license": "mit", "bytes": published["bytes"]}
    assert json.loads(done("verify", place / "published", f"local-dir:{place / 'published'}", "--json"))["passed"]


def test_wrap_takes_the_folder_as_a_plain_model(place: Path) -> None:
    report = json.loads(done("wrap", f"local-dir:{place / 'published'}", "--resolutions", "48", "--dry-run", "--json"))
    assert list(report["resolutions"]) == ["48"]


def test_the_hub_is_asked_for_the_one_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(repository: str, name: str, *, revision: str | None) -> str:
        asked.append((repository, name, revision))
        return str(place / "published" / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    told = json.loads(done("inspect", "hf-hub:somebody/rs", "--json"))
    assert told["resolutions"] == [48, 32]
    file_of("hf-hub:somebody/rs@v2")
    assert asked == [("somebody/rs", "rsconvert.safetensors", None), ("somebody/rs", "rsconvert.safetensors", "v2")]


@pytest.mark.parametrize("error", [OSError("no route\nto host"), ValueError("bad name"), RuntimeError("401")])
def test_what_the_hub_says_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    result = run("inspect", "hf-hub:somebody/rs")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: hf-hub:somebody/rs is unavailable ({type(error).__name__}: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--format", "hub", "--resolution", "48"), "resolution is 48 for the format hub"),
        (("--format", "hub", "--resolutions", "48"), "resolutions is 48 for the format hub"),
        (("--licence", "mit"), "licence is mit for the format switchable"),
        (("--format", "hub", "--results", "nowhere.json"), "nowhere.json can't be read"),
    ],
)
def test_options_without_effect_are_refused(place: Path, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    result = run("export", place / "net.safetensors", "-o", tmp_path / "out", *options)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert words in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "function"),
    [
        (["evaluate"], rsconvert.evaluate),
        (["calibrate"], rsconvert.calibrate),
        (["quantize"], export.quantize),
        (["cascade"], runtime.fit_cascade),
        (["benchmark"], evaluation.measure_costs),
        (["verify"], export.verify_export),
        (["report"], study.write_report),
        (["compare"], study.plan_comparison),
        (["analyze", "pooling"], study.pooled_values),
        (["demo"], run_demo),
    ],
)
def test_defaults_are_those_of_the_function(command: list[str], function: Callable[..., Any]) -> None:
    """Those that are read from its source are those that it has; the help shows them."""
    found: Any = main
    for word in command:
        found = found.commands[word]
    context = click.Context(found)
    shown = {option.name: option.get_default(context) for option in found.params if callable(option.default)}
    parameters = inspect.signature(function).parameters
    own = {name: parameters[name].default for name in shown if name in parameters}
    assert own
    for name, value in own.items():
        assert shown[name] == (",".join(map(str, value)) if isinstance(value, tuple) else value)
        assert str(shown[name]) in run(*command, "--help").stdout


def test_choices_are_those_of_the_library() -> None:
    (form,) = [option for option in main.commands["calibrate"].params if option.name == "form"]
    assert tuple(form.type.choices) == get_args(Form)  # type: ignore[attr-defined]
    assert f"Of {', '.join(FORMS)}." in " ".join(run("benchmark", "--help").stdout.split())


@pytest.mark.parametrize(("text", "value"), [("0.8", 0.8), ("test", "test"), ("1e400", float("inf"))])
def test_a_split_is_a_name_or_a_share(text: str, value: object) -> None:
    command = click.Command("x", params=[])
    options.split(command)
    context = command.make_context("x", ["--split", text])
    assert context.params["split"] == value
    assert command.make_context("x", []).params["split"] == "val"
    with pytest.raises(ConfigError, match="split is half; val, test, train or a share such as"):
        command.make_context("x", ["--split", "half"])
