import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import rsconvert
from rsconvert.demo.story import PATTERNS, DemoResult, draw, run_demo, write_images


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    folder = tmp_path_factory.mktemp("demo") / "out"
    return run_demo(folder, images_per_class=8, epochs=(2, 2))


def test_the_demo_leaves_its_table_figure_checkpoint_and_export(result: DemoResult) -> None:
    names = {path.name for path in result.folder.iterdir()}
    files = {"table.md", "accuracy.png", "accuracy.svg", "switchable.safetensors", "plain-64"}
    assert files | {"images", "run"} <= names
    with Image.open(result.folder / "accuracy.png") as figure:
        assert figure.size[0] > 600
    lines = (result.folder / "table.md").read_text().splitlines()
    assert [line.split("|")[1].split()[0] for line in lines[2:]] == [
        "96",
        "88",
        "80",
        "72",
        "64",
        "56",
        "48",
        "40",
        "32",
    ]


def test_its_table_is_what_was_measured(result: DemoResult) -> None:
    assert result.ordinary.count == result.switchable.count == 24
    row = result.switchable.resolutions[72]
    assert row.interpolated
    assert f"| 72 (interpolated) | {row.multiply_adds / 1e6:.1f} |" in result.table()  # type: ignore[operator]
    json.dumps(result.to_dict())


def test_its_files_open(result: DemoResult) -> None:
    net = rsconvert.load(result.folder / "switchable.safetensors").eval()
    plain = timm.create_model(f"local-dir:{result.folder / 'plain-64'}", pretrained=True).eval()
    x = torch.rand(2, 3, 64, 64)
    assert net.resolutions == (96, 80, 64, 48, 32)
    assert torch.equal(plain(x), net.at(64)(x))


def test_a_folder_that_exists_is_kept(result: DemoResult) -> None:
    with pytest.raises(rsconvert.CheckpointError, match="--force"):
        run_demo(result.folder)
    assert (result.folder / "table.md").is_file()


def test_until_it_is_done_the_old_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(place: Path, *_: object) -> None:
        assert (old / "table.md").is_file()
        (place / "table.md").touch()
        raise KeyboardInterrupt("its state after epoch 1 of 6 is kept")

    old = tmp_path / "demo"
    old.mkdir()
    for name in (".rsconvert-demo", "table.md"):
        (old / name).write_text("old")
    monkeypatch.setattr("rsconvert.demo.story._tell_story", stopped)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_demo(old, force=True)
    assert caught.value.args == ()
    assert (old / "table.md").read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_a_folder_of_somebody_else_survives_force(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.txt").write_text("mine")
    with pytest.raises(rsconvert.CheckpointError, match="not made by a demo"):
        run_demo(tmp_path, force=True)
    assert (tmp_path / "images" / "mine.txt").read_text() == "mine"


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(rsconvert.CheckpointError, match="No space left"):
        run_demo(tmp_path / "demo")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_drawing_is_a_function_of_its_generator(pattern: str) -> None:
    one, same, other = (np.asarray(draw(pattern, np.random.default_rng(seed))) for seed in (3, 3, 4))
    assert one.shape == (128, 128, 3)
    assert one.dtype == np.uint8
    assert (one == same).all()
    assert (one != other).mean() > 0.5


def test_the_classes_differ_in_detail_alone() -> None:
    """One generator state draws one place and colours; what is left after shrinking eightfold is nearly equal."""
    drawings = [draw(pattern, np.random.default_rng(0)) for pattern in PATTERNS]
    full = [np.asarray(d, dtype=float) for d in drawings]
    small = [np.asarray(d.resize((16, 16), Image.Resampling.BOX), dtype=float) for d in drawings]
    pairs = [(i, j) for i in range(len(drawings)) for j in range(i)]
    apart = np.mean([np.abs(full[i] - full[j]).mean() for i, j in pairs])
    blurred = np.mean([np.abs(small[i] - small[j]).mean() for i, j in pairs])
    assert blurred < apart / 2


def test_images_lie_in_class_folders(tmp_path: Path) -> None:
    write_images(tmp_path, "val", 2, np.random.default_rng(0))
    assert sorted(p.parent.name for p in tmp_path.glob("val/*/*.png")) == sorted([*PATTERNS, *PATTERNS])
