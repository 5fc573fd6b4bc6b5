"""evaluate: lists of sizes, baselines of every kind, tables on disk; benchmark: its JSON, its table, its mistakes."""

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file, save_file

import rsconvert
from rsconvert.cli import main
from rsconvert.cli.options import resolution_list, size_list
from rsconvert.errors import ResolutionError
from rsconvert.evaluation import Switching, machine_key
from rsconvert.runtime import resolution_for_budget

NAME = "test_efficientnet"


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, an I-Net, plain weights, and eight photos."""
    folder = tmp_path_factory.mktemp("evaluate")
    for c in "ab":
        (folder / "photos" / "val" / c).mkdir(parents=True)
        for i in range(4):
            pixels = torch.randint(0, 256, (50, 40, 3), generator=torch.Generator().manual_seed(i), dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / "photos" / "val" / c / f"{i}.png")
    with torch.random.fork_rng(devices=[]):
        for seed, (name, sides) in enumerate({"net": (64, 48), "inet": (48,)}.items()):
            torch.manual_seed(seed)
            model = rsconvert.create_model(NAME, num_classes=2)
            rsconvert.save(rsconvert.make_switchable(model, sides), folder / f"{name}.rs.safetensors")
        save_file(model.state_dict(), folder / "plain.safetensors")
    return folder


def measured(place: Path, *words: object) -> dict:
    options = ["--data", place / "photos", "--workers", 0, "--json"]
    result = run("evaluate", place / "net.rs.safetensors", *options, *words)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_lists_and_ranges_hold_both_ends() -> None:
    assert resolution_list("96,128:224:32,64") == (224, 192, 160, 128, 96, 64)
    assert resolution_list("224:200:16") == (216, 200), "from the smaller end on"
    assert size_list("64,128x96,32") == (64, 32, (128, 96))
    assert size_list("30x40") == ((30, 40),)


@pytest.mark.parametrize("text", ["", "a", "96:128", "96:128:0", "96:128:-8", "96,96", "1:2:3:4", "0:8:4"])
def test_a_list_that_can_t_be_read_is_named(text: str) -> None:
    with pytest.raises(ResolutionError, match="resolutions"):
        resolution_list(text)


@pytest.mark.parametrize("text", ["30x", "30x40x50", "0x30", "x"])
def test_a_pair_that_can_t_be_read_is_refused(text: str) -> None:
    with pytest.raises(ResolutionError):
        size_list(text)


def test_baselines_of_every_kind_stand_in_one_table(place: Path) -> None:
    kinds = [place / "inet.rs.safetensors", f"weights={place / 'plain.safetensors'}"]
    facts = measured(place, "--resolutions", "48:64:8,40x56", *(w for kind in kinds for w in ("--baseline", kind)))
    assert list(facts["baselines"]) == ["inet", "weights"]
    assert list(facts["resolutions"]) == ["64", "56", "48", "40x56"]
    inet, weights = (
        [row["top1"] for row in facts["baselines"][name]["resolutions"].values()] for name in ("inet", "weights")
    )
    assert inet == weights, "the same values, once wrapped, once plain"
    alone = measured(place, "--resolutions", "48:64:8,40x56", "--baseline", kinds[0])["baselines"]["inet"]
    assert alone == facts["baselines"]["inet"]


def test_a_path_may_hold_an_equals_sign(place: Path, tmp_path: Path) -> None:
    (tmp_path / "lr=0.1").mkdir()
    file = tmp_path / "lr=0.1" / "inet.rs.safetensors"
    file.write_bytes((place / "inet.rs.safetensors").read_bytes())
    facts = measured(place, "--resolutions", "48", "--baseline", file, "--baseline", f"named={file}")
    assert list(facts["baselines"]) == ["inet", "named"]


def test_tables_and_logits_are_written(place: Path, tmp_path: Path) -> None:
    table, logits = tmp_path / "table.csv", tmp_path / "logits.safetensors"
    facts = measured(place, "--per-class", "-o", table, "--logits", logits)
    head, first, *_ = table.read_text().splitlines()
    assert "top1 a,top1 b" in head
    assert first.startswith(f"network,64,False,8,{facts['resolutions']['64']['top1']}")
    assert {name: tuple(t.shape) for name, t in load_file(logits).items()} == {
        "targets": (8,),
        "network/64": (8, 2),
        "network/48": (8, 2),
        "network/ensemble": (8, 2),
    }
    measured(place, "-o", tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text().startswith("| resolution | top-1 (%) |")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-o", "table.txt"], "output is table.txt; a name in .csv or .md is accepted"),
        (["-o", "net.rs.safetensors"], "exists"),
        (["-o", "missing/table.csv", "--data", "nowhere"], "missing is no folder"),
        (["--logits", "missing/logits.safetensors", "--data", "nowhere"], "missing is no folder"),
        (["--baseline", "resnet5"], "resnet5"),
        (["--baseline", "inet.rs.safetensors", "--baseline", "inet.rs.safetensors"], "baseline inet is given twice"),
        (["--baseline", "network=inet.rs.safetensors"], "a baseline is named network"),
        (["--baseline", "photos"], "photos holds no best.safetensors"),
        (["--resolutions", "48:64"], "resolutions has 48:64"),
        (["--resolutions", "48x"], "resolutions has ''"),
    ],
)
def test_bad_input_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str) -> None:
    monkeypatch.chdir(place)
    result = run("evaluate", "net.rs.safetensors", "--data", "photos", "--workers", 0, *words)
    assert result.exit_code == 1
    assert expected in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


QUICK = ("--rounds", 1, "--forms", "plain", "--device", "cpu")


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint and labelled images, where the commands run."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "photos", "photos")
    shutil.copy(place / "net.rs.safetensors", "net.safetensors")
    return tmp_path


def test_json_says_what_was_measured_and_the_file_is_left(here: Path) -> None:
    before = Path("net.safetensors").read_bytes()
    result = run("benchmark", "net.safetensors", *QUICK, "--resolutions", "48:64:8", "--batch-sizes", "1,2", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert [(c["resolution"], c["batch_size"]) for c in facts["costs"]] == [
        (r, b) for r in (64, 56, 48) for b in (1, 2)
    ]
    assert (facts["machine"], facts["stored"]) == (machine_key(torch.device("cpu")), False)
    assert facts["switching"]["create_ms"] > 0
    assert facts["switching"]["load_ms"] > 0
    assert Path("net.safetensors").read_bytes() == before


def test_the_stored_table_has_the_top1_of_evaluate(here: Path) -> None:
    before = load_file("net.safetensors")
    options = ("--resolutions", "64,56", "--data", "photos", "--workers", 0)
    result = run("benchmark", "net.safetensors", *QUICK, *options, "--store")
    assert result.exit_code == 0, result.output
    assert "stored in net.safetensors" in result.stdout
    told = json.loads(run("evaluate", "net.safetensors", *options, "--device", "cpu", "--json").stdout)["resolutions"]
    net = rsconvert.load("net.safetensors")
    ((machine, rows),) = net.measured.costs.items()
    assert machine == machine_key(torch.device("cpu"))
    assert {str(row["resolution"]): row["top1"] for row in rows} == {r: row["top1"] for r, row in told.items()}
    assert {str(row["resolution"]): row["multiply_adds"] for row in rows} == {
        r: row["multiply_adds"] for r, row in told.items()
    }
    assert resolution_for_budget(net, latency_ms=1e9) in (64, 56)
    after = load_file("net.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_full_disk_leaves_the_file(
    here: Path, full_disk: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsconvert.evaluation.benchmark.measure_switching", lambda *_, **__: Switching(32, 0.1))
    before = Path("net.safetensors").read_bytes()
    with full_disk():
        result = run("benchmark", "net.safetensors", *QUICK, "--store")
    assert result.exit_code == 1
    assert "net.safetensors can't be written" in result.stderr
    assert Path("net.safetensors").read_bytes() == before


def test_a_folder_that_can_not_be_written_is_told_before_measuring(here: Path, monkeypatch) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("rsconvert.evaluation.measure_costs", lambda *_, **__: pytest.fail("it measured"))
    result = run("benchmark", "net.safetensors", *QUICK, "--store")
    assert result.exit_code == 1
    assert "net.safetensors can't be written" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--forms", "plane"], "Did you mean plain?"),
        (["--batch-sizes", "2,2"], "batch_sizes has 2 twice"),
        (["--batch-sizes", "x"], "batch_sizes is 'x'"),
        (["--resolutions", "48,48"], "48"),
        (["--rounds", "0"], "rounds is 0"),
        (["--threads", "0"], "threads is 0"),
        (["--workers", "1"], "workers is 1 without data"),
        (["--device", "banana"], "device is 'banana'"),
    ],
)
def test_a_mistake_of_a_benchmark_is_one_line(here: Path, options: list[str], words: str) -> None:
    result = run("benchmark", "net.safetensors", *options)
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    assert words in line
