"""The pages keep their word: the code in them runs, and their links lead somewhere."""

import copy
import math
import pkgutil
import re
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

import rsconvert
from rsconvert.evaluation import machine_key
from rsconvert.surgery import Measured

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
RESOLUTIONS = (64, 48, 32)


def code_of(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def reader(function: str) -> Any:
    """Return a function of the page on the file."""
    (source,) = (
        code for code in code_of(ROOT / "docs" / "checkpoint_format.md", "python") if f"def {function}(" in code
    )
    names: dict[str, object] = {}
    exec(source, names)
    return names[function]


@pytest.fixture(scope="module")
def net() -> rsconvert.SwitchableModel:
    """A switchable network whose sets differ from each other."""
    torch.manual_seed(0)
    model = rsconvert.create_model("test_efficientnet", num_classes=5)
    net = rsconvert.make_switchable(model, RESOLUTIONS).eval()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1 + 0.1 * torch.rand_like(tensor)).add_(0.01 * torch.rand_like(tensor))
    return net


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_the_file_is_read_without_rsconvert(net: rsconvert.SwitchableModel, tmp_path: Path, resolution: int) -> None:
    rsconvert.save(net, tmp_path / "net.safetensors")
    model = reader("read")(tmp_path / "net.safetensors", resolution)
    x = torch.rand(2, 3, resolution, resolution)
    assert torch.equal(model(x), net.at(resolution)(x))
    assert not torch.equal(model(x), net.at(RESOLUTIONS[RESOLUTIONS.index(resolution) - 1])(x))


def test_the_weights_of_a_quantized_network_are_read_without_rsconvert(
    net: rsconvert.SwitchableModel, tmp_path: Path
) -> None:
    small = copy.deepcopy(net)
    rsconvert.quantize_(small, "3/32")
    rsconvert.save(small, tmp_path / "net.safetensors")
    tensors = load_file(tmp_path / "net.safetensors")
    convs = [key.removesuffix(".weight_codes") for key in tensors if key.endswith(".weight_codes")]
    assert convs
    for conv in convs:
        weight = small.get_parameter(f"{conv}.weight").detach().numpy()
        assert (reader("read_weight")(tensors, conv, weight.shape) == weight).all()


def test_a_file_with_position_tables_is_read_without_rsconvert(tmp_path: Path) -> None:
    net = rsconvert.make_switchable(rsconvert.create_model("levit_128s", num_classes=3), (96, 64)).eval()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.01 * torch.rand_like(tensor))
    rsconvert.save(net, tmp_path / "net.safetensors")
    for resolution in net.resolutions:
        x = torch.rand(2, 3, resolution, resolution)
        model = reader("read")(tmp_path / "net.safetensors", resolution)
        assert torch.equal(model(x), net.at(resolution)(x))


def test_stock_timm_reads_the_native_network(net: rsconvert.SwitchableModel, tmp_path: Path) -> None:
    rsconvert.save(net, tmp_path / "net.safetensors")
    model = timm.create_model("test_efficientnet", num_classes=5).eval()
    timm.models.load_checkpoint(model, str(tmp_path / "net.safetensors"), strict=False)
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(model(x), net.at(64)(x))


def anchors(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles} | set(
        re.findall(r'<a id="([^"]+)"', text)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_names_of_a_page_exist(page: Path) -> None:
    files = {"rsconvert.alpha", "rsconvert.json", "rsconvert.safetensors"}
    for name in set(re.findall(r"\brsconvert(?:\.[a-zA-Z]\w*)+", page.read_text(encoding="utf-8"))) - files:
        assert pkgutil.resolve_name(name) is not None


def test_the_files_that_answer_a_newcomer_exist() -> None:
    section = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8").partition("## Where is it?")[2]
    files = re.findall(r"^\| .*\? \| `(.+)` \|$", section, re.MULTILINE)
    assert len(files) >= 10
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_the_command_page_is_what_help_prints() -> None:
    page = ROOT / "docs" / "commands.md"
    make = runpy.run_path(str(ROOT / "docs" / "make_commands.py"))["commands_page"]
    assert page.read_text(encoding="utf-8") == make(), "run python docs/make_commands.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_holds_a_placeholder(page: Path) -> None:
    assert not re.search(r"^[A-Z]+(_[A-Z]+)*$", page.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_holds_the_marks_of_a_merge(page: Path) -> None:
    assert not re.search(r"^(<{7}|={7}|>{7})", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_lines_on_run_time_run_as_they_stand(net: rsconvert.SwitchableModel, tmp_path: Path, monkeypatch) -> None:
    photos, budget, cascade = code_of(ROOT / "docs" / "runtime.md", "python")
    net, images = copy.deepcopy(net).train(), torch.randn(2, 3, 64, 64)
    row = {"form": "plain", "batch_size": 1, "amp": "off", "multiply_adds": 1, "latency_ms": 9.0, "top1": 50.0}
    here = machine_key(torch.device("cpu"))
    net.measured = Measured(
        costs={here: [{**row, "resolution": 64}]}, cascade={"stages": [32, 64], "thresholds": [0.9]}
    )
    monkeypatch.chdir(tmp_path)
    for name in ("net", "best.cascade"):
        rsconvert.save(net, f"{name}.safetensors")
    names: dict[str, Any] = {"images": images, "net": net, "rsconvert": rsconvert}
    (tmp_path / "holiday").mkdir()
    for name in ("photo.jpg", "holiday/a.jpg"):
        Image.new("RGB", (80, 70), (200, 90, 10)).save(tmp_path / name)
    exec(photos.replace("160", "48"), names)
    assert [p.image for p in names["found"]] == ["photo.jpg", "holiday/a.jpg"]
    assert [len(p.classes) for p in names["found"]] == [3, 3]
    assert names["x"].shape == (1, 3, 48, 48)
    exec(budget, names)
    assert torch.equal(names["logits"], net.eval().at(64)(images))  # type: ignore[arg-type]
    exec(cascade, names)
    assert names["resolution"].tolist() == [64, 64]  # type: ignore[attr-defined]
    assert torch.equal(names["logits"], net.at(64)(images))  # type: ignore[arg-type]


def test_the_loops_of_the_page_on_detection_run() -> None:
    at, own, mred = code_of(ROOT / "docs" / "detection.md", "python")
    script = (ROOT / "docs" / "examples" / "detection.py").read_text(encoding="utf-8")
    assert at == re.sub(
        r'    """.*"""\n', "", re.findall(r"^def at.*?\n\n\n", script, re.DOTALL | re.MULTILINE)[0][:-2]
    )
    line = '    loss = sum(output["loss"] for output in outputs)\n'
    assert line in own
    batch = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 5
    plain, distilled = dict[str, Any](batches=[batch] * 10), dict[str, Any](batches=[batch] * 10)
    exec(own, plain)
    exec(own.replace(line, mred), distilled)
    assert plain["loss"] < 3 * math.log(5)  # three resolutions, five classes
    assert plain["net"].alpha.unique().numel() == 1
    assert distilled["net"].alpha.unique().numel() == 3


class Tracker:
    """The calls that the pages make of wandb, trackio and mlflow, with their arguments' names; ``said`` keeps them."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.start_run = nullcontext
        self.log_params, self.log_metrics = self.said.append, self.log

    def init(self, *, project: str, config: dict[str, Any]) -> "Tracker":
        self.said.append(config)
        return self

    def log(self, row: dict[str, Any], *, step: int) -> None:
        self.said.append((step, row))

    def finish(self) -> None:
        self.said.append("finished")


@pytest.mark.parametrize(("name", "ends"), [("wandb", ["finished"]), ("trackio", ["finished"]), ("mlflow", [])])
def test_a_tracker_gets_settings_and_rows(
    net: rsconvert.SwitchableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ends: list[str]
) -> None:
    blocks = code_of(ROOT / "docs" / "training.md", "python")
    (lines,) = [block for block in blocks if f"import {name}" in block]
    assert len([line for line in lines.splitlines() if line]) == 4
    draw_photos(tmp_path, classes=5, images=4)
    monkeypatch.chdir(tmp_path)
    rsconvert.save(net, "start.safetensors")
    tracker, names = Tracker(), dict[str, Any]()
    monkeypatch.setitem(sys.modules, name, tracker)  # type: ignore[arg-type]
    small = blocks[0].replace("epochs=4", "epochs=2, workers=0, batch_size=16, device='cpu'")
    exec(small, names)
    exec(lines, names)
    settings, *rows = tracker.said[: len(tracker.said) - len(ends)]
    assert (settings["epochs"], settings["batch_size"]) == (2, 16)
    assert [(step, row["epoch"]) for step, row in rows] == [(1, 1), (2, 2)]
    assert all(isinstance(value, int | float) for _, row in rows for value in row.values())
    assert tracker.said[len(rows) + 1 :] == ends


def draw_photos(folder: Path, *, classes: int, images: int) -> None:
    for split in ("train", "val"):
        for name in range(classes):
            place = folder / "photos" / split / str(name)
            place.mkdir(parents=True)
            for i in range(images):
                Image.new("RGB", (40 + name, 40 + name), (i, 40 + name, 0)).save(place / f"{i}.png")


def test_the_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small network without weights, small images, and small sizes."""
    (source,) = code_of(ROOT / "README.md", "python")
    draw_photos(tmp_path, classes=2, images=16)
    monkeypatch.chdir(tmp_path)
    small = {'"resnet50", pretrained=True, num_classes=10': '"test_efficientnet", num_classes=2'}
    small |= {
        "epochs=4), progress=True": "epochs=1, workers=0, batch_size=16)",
        "(224, 192, 160, 128, 96)": "(64, 32)",
        '"photo.jpg", resolution=160': '"photos/val/0/0.png", resolution=64, device="cpu"',
        '"photo.jpg", 160': '"photos/val/0/0.png", 64',
        "at(128)": "at(48)",
    }
    for large, little in small.items():
        assert large in source
        source = source.replace(large, little)
    names: dict[str, object] = {}
    exec(source, names)
    assert names["logits"].shape == (1, 2)  # type: ignore[attr-defined]
    assert names["fast"](torch.rand(1, 3, 48, 48)).shape == (1, 2)  # type: ignore[operator]
