"""analyze: files and JSON of each command, figures counted again from logits; report: its page, and what it refuses."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file

import rsconvert
from rsconvert.cli import main
from rsconvert.evaluation import predict

NAME = "test_efficientnet"
READING = ("--workers", 0, "--device", "cpu")


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["analyze", *(str(word) for word in words)])


def refused(*words: object) -> str:
    result = run(*words)
    assert result.exit_code == 1, result.output
    line: str = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    return line


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A switchable network, two I-Nets, plain weights, and sixteen patchy photos of two classes."""
    folder = tmp_path_factory.mktemp("analyze")
    patches = np.random.default_rng(0).integers(0, 256, (16, 5, 5, 3), dtype=np.uint8)
    for i, pixels in enumerate(patches.repeat(10, axis=1).repeat(10, axis=2)):
        (folder / "photos" / "val" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "photos" / "val" / "ab"[i % 2] / f"{i}.png")
    with torch.random.fork_rng(devices=[]):
        for seed, (name, sides) in enumerate({"net": (64, 48), "I-64": (64,), "I-48": (48,)}.items()):
            torch.manual_seed(seed)
            net = rsconvert.make_switchable(rsconvert.create_model(NAME, num_classes=2), sides)
            for tensor_name, tensor in net.state_dict().items():
                if tensor.is_floating_point() and "alpha" not in tensor_name:
                    tensor.mul_(1 + 0.5 * torch.rand_like(tensor)).add_(0.1 * torch.rand_like(tensor))
            rsconvert.save(net, folder / f"{name}.rs.safetensors")
        save_file(net.extract(48).state_dict(), folder / "plain.safetensors")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(name: str, *words: object) -> dict[str, Any]:
    """Run a command; see that it left its four files, in the default folder."""
    result = run(name, *words, "--json")
    assert result.exit_code == 0, result.output
    facts: dict[str, Any] = json.loads(result.stdout)
    files = [str(Path("analysis", name + ending)) for ending in (".png", ".svg", ".csv", ".md")]
    assert facts["files"] == files
    assert all(Path(file).stat().st_size > 50 for file in files)
    return facts


def rows_of(name: str) -> list[dict[str, str]]:
    with open(f"analysis/{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def right_at(place: Path, name: str, *sizes: int) -> list[np.ndarray]:
    """Whether each answer is right, from the logits."""
    net = rsconvert.load(place / f"{name}.rs.safetensors")
    told = predict({"net": net}, place / "photos", sizes, workers=0, keep_logits=True)
    answers = [told.answers["net"][size].logits for size in sizes]
    return [logits.double().numpy().argmax(1) == told.targets.numpy() for logits in answers if logits is not None]


def share(right: np.ndarray, wrong: np.ndarray) -> float:
    return 100 * float(np.mean(right & ~wrong))


def test_complementarity_of_a_network_beside_a_set_of_i_nets(place: Path, here: Path) -> None:
    baselines = ["--baseline", place / "I-64.rs.safetensors", "--baseline", f"48={place / 'plain.safetensors'}"]
    facts = found("complementarity", place / "net.rs.safetensors", "--data", place / "photos", *baselines, *READING)
    assert list(facts) == ["I-Nets", "net", "files"]
    own = right_at(place, "net", 64, 48)
    inets = [*right_at(place, "I-64", 64), *right_at(place, "I-48", 48)]
    for title, (large, small) in (("net", own), ("I-Nets", inets)):
        assert facts[title]["right_wrong"]["64"]["48"] == pytest.approx(share(large, small))
        assert facts[title]["right_wrong"]["48"]["64"] == pytest.approx(share(small, large))
        assert facts[title]["top1"] == pytest.approx({"64": 100 * large.mean(), "48": 100 * small.mean()})
    assert facts["I-Nets"]["right_wrong"] != facts["net"]["right_wrong"]
    rows = rows_of("complementarity")
    assert len(rows) == 8
    assert float(rows[1]["percent"]) == facts["I-Nets"]["right_wrong"]["64"]["48"]
    table = Path("analysis/complementarity.md").read_text()
    assert "**I-Nets**" in table
    assert "| right at | wrong at 64 | wrong at 48 | top-1 |" in table


def test_complementarity_of_several_networks(place: Path, here: Path) -> None:
    several = [place / f"{name}.rs.safetensors" for name in ("I-48", "I-64")]
    facts = found("complementarity", *several, "--data", place / "photos", *READING)
    large, small = *right_at(place, "I-64", 64), *right_at(place, "I-48", 48)
    assert list(facts["I-Nets"]["top1"]) == ["64", "48"]
    assert facts["I-Nets"]["right_wrong"]["64"]["48"] == pytest.approx(share(large, small))
    assert "each needs a name of its own" in refused(
        "complementarity", several[0], several[0], "--data", place / "photos", "--force"
    )


def test_accuracy_is_dense_between_the_trained_resolutions_of_all(place: Path, here: Path) -> None:
    baselines = ["--baseline", place / "I-64.rs.safetensors", "--baseline", f"small={place / 'I-48.rs.safetensors'}"]
    facts = found("accuracy", place / "net.rs.safetensors", "--data", place / "photos", *baselines, *READING)
    assert list(facts["resolutions"]) == ["64", "48"]
    asked = ["--resolutions", "40:64:8", "--force"]
    facts = found("accuracy", place / "net.rs.safetensors", "--data", place / "photos", *baselines, *READING, *asked)
    sizes = (64, 56, 48, 40)
    for name, curve in (("net", facts), ("I-64", facts["baselines"]["I-64"]), ("I-48", facts["baselines"]["small"])):
        for size, right in zip(sizes, right_at(place, name, *sizes), strict=True):
            assert curve["resolutions"][str(size)]["top1"] == pytest.approx(100 * right.mean())
    assert len(rows_of("accuracy")) >= 12
    svg = Path("analysis/accuracy.svg").read_text()
    assert all(f"<!-- {word} -->" in svg for word in ("net", "I-64", "small", "top-1 (%)"))


def test_batchnorm_needs_no_images(place: Path, here: Path) -> None:
    facts = found("batchnorm", place / "net.rs.safetensors")
    net = rsconvert.load(place / "net.rs.safetensors")
    name, bn = next(iter(net.switchable_bns()))
    row = next(r for r in facts["rows"] if (r["layer"], r["tensor"], r["resolution"]) == (name, "bias", 48))
    assert row["mean"] == pytest.approx(bn.sets[1].bias.detach().double().numpy().mean())
    assert len(rows_of("batchnorm")) == len(facts["rows"]) == 8 * sum(1 for _ in net.switchable_bns())


def test_pooling_compares_crops_of_training(place: Path, here: Path) -> None:
    areas = ["--crop-area", "0.08,1", "--crop-area", "0.3,1"]
    words = [place / "net.rs.safetensors", "--data", place / "photos", "--images", 9, *READING]
    facts = found("pooling", *words, *areas)
    views = [(row["resolution"], row["views"]) for row in facts["rows"]]
    assert views == [(r, v) for r in (64, 48) for v in ("test", "train 0.08-1", "train 0.3-1")]
    assert facts["images"] == 9
    assert len(rows_of("pooling")) == 201
    own = found("pooling", *words, "--force", "--resolutions", 56)
    assert [row["views"] for row in own["rows"]] == ["test", "train 0.08-1"], "the paper's, for it was never trained"
    assert "crop_area is 0.3" in refused("pooling", *words, "--force", "--crop-area", "0.3")


def test_importance_of_runs(here: Path) -> None:
    for name, score in (("a", 0.7), ("b", 0.9)):
        Path(name).mkdir()
        Path(name, "summary.csv").write_text(f"epoch,score_64,score_48\n1,0.5,0.5\n2,{score},{1 - score:.1f}\n")
    facts = found("importance", "a", "b")
    assert facts["mean"]["2"] == pytest.approx({"64": 0.8, "48": 0.2})
    assert facts["deviation"]["2"]["64"] == pytest.approx(np.std([0.7, 0.9], ddof=1))
    assert (facts["runs"], facts["falling"]) == (2, True)
    assert "nowhere" in refused("importance", "nowhere", "-o", "other")


def test_what_exists_is_kept(place: Path, here: Path) -> None:
    words = ["batchnorm", place / "net.rs.safetensors", "-o", "out/deep"]
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "Distance from the native set" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("wrote ")
    Path("out/deep/batchnorm.csv").write_text("mine")
    Path("out/deep/batchnorm.png").unlink()
    assert "--force" in refused(*words)
    assert not Path("out/deep/batchnorm.png").exists()
    assert run(*words, "--force").exit_code == 0
    assert Path("out/deep/batchnorm.csv").read_text() != "mine"


OPTIONS = ["--data", "photos", "--workers", 0, "--device", "cpu", "--examples", 2]


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def trained(place: Path, here: Path) -> Path:
    """A folder with a run of one epoch, made by hand, and a folder of images."""
    shutil.copytree(place / "photos", "photos")
    Path("run").mkdir()
    shutil.copy(place / "net.rs.safetensors", "run/best.safetensors")
    Path("run/summary.csv").write_text("epoch,loss,score_64,score_48,top1_64,top1_48\n1,2,.5,.5,50,50\n")
    return here


def test_report_writes_a_page_about_a_run(trained: Path) -> None:
    baseline = ["--baseline", "twin=run/best.safetensors"]
    result = command("report", "run", *OPTIONS, *baseline)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(
        r"wrote report\.html, 0\.\d MB: 3 sizes, 2 example images, 1 more of the mistakes\n", result.stdout
    )
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "The run" in page
    assert page.count("<img ") == (2 + 1) * 3
    facts = json.loads(page.partition('id="facts">')[2].partition("</script>")[0])
    twin = facts["evaluation"]["baselines"]["twin"]["resolutions"]["64"]["paired"]
    assert (twin["only_network"], twin["only_baseline"]) == (0, 0)
    assert facts["checkpoint"]["name"] == "run/best.safetensors"
    assert facts["made"]["command"].startswith("rsconvert")


def test_the_json_of_a_report_is_that_of_evaluate(trained: Path) -> None:
    told = command("report", "run/best.safetensors", *OPTIONS, "--resolutions", "64,48", "-o", "x.html", "--json")
    measured = command("evaluate", "run", *OPTIONS[:6], "--per-class", "--json")
    facts = json.loads(told.stdout)
    assert facts.pop("output") == "x.html"
    assert facts.pop("bytes") == (trained / "x.html").stat().st_size
    assert facts == json.loads(measured.stdout)
    assert "The run" not in (trained / "x.html").read_text(encoding="utf-8")


def test_a_report_takes_a_published_folder(trained: Path) -> None:
    assert command("export", "run", "--format", "hub", "-o", "hub").exit_code == 0
    for folder in ("hub", "local-dir:hub"):
        result = command("report", folder, *OPTIONS, "--resolutions", "48", "--force")
        assert result.exit_code == 0, result.output
        page = (trained / "report.html").read_text(encoding="utf-8")
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
        (["--label-offset", "1"], "label_offset is 1 and has no effect"),
    ],
)
def test_a_mistake_of_a_report_is_one_line(trained: Path, options: list[str], words: str) -> None:
    result = command("report", "run", *OPTIONS, *options)
    assert result.exit_code == 1, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (trained / "report.html").exists()
