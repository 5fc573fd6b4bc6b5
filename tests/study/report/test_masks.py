"""The page of a network of masks: figures against NumPy, colours of the pictures against the classes that are known."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import rsconvert
from rsconvert.errors import DataError
from rsconvert.evaluation import Masks
from rsconvert.study.report import write_report
from rsconvert.surgery import SwitchableModel

COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0)}  # those of PASCAL VOC


class Brightest(nn.Module):
    """The class of a pixel is its brightest colour."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1, bias=False)
        nn.init.dirac_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.bn(x))


def network() -> SwitchableModel:
    return rsconvert.make_switchable(Brightest(), (32, 16), task="segmentation").eval()


@dataclass(frozen=True)
class Written:
    """The text of a page, its facts, and its data."""

    page: str
    facts: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Four images of 64 by 32 pixels, red on the left and blue on the right; of two the mask calls the right green."""
    folder = tmp_path_factory.mktemp("masks")
    for part in ("images/val", "masks/val"):
        (folder / part).mkdir(parents=True)
    for number in range(4):
        pixels, mask = np.zeros((32, 64, 3), np.uint8), np.zeros((32, 64), np.uint8)
        pixels[:, :32, 0] = pixels[:, 32:, 2] = 255
        mask[:, 32:] = 1 if number < 2 else 2
        mask[:8] = 255
        Image.fromarray(pixels).save(folder / "images" / "val" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / "val" / f"{number}.png")
    (folder / "names.txt").write_text("red\n<green>\nblue\n")
    page = folder / "report.html"
    with torch.random.fork_rng(devices=[]):
        facts = write_report(
            network(),
            folder,
            page,
            [32, 16],
            baselines={"other": network()},
            examples=4,
            class_names=folder / "names.txt",
            workers=0,
            device="cpu",
        )
    return Written(page.read_text(encoding="utf-8"), facts, folder)


def pictures(page: str) -> list["np.ndarray[Any, Any]"]:
    found = re.findall(r'<img [^>]*src="data:image/jpeg;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).astype(int) for text in found]


def test_the_figures_are_known(written: Written) -> None:
    row = written.facts["evaluation"]["resolutions"]["32"]
    # Labelled are 24 rows of 4 images, half of them red; of the right halves half are green, and all predicted blue.
    assert row["pixel_accuracy"] == pytest.approx(75)
    assert row["per_class"] == pytest.approx([100, 0, 50])
    assert row["miou"] == pytest.approx(50)
    assert [image["scores"]["network"]["32"] for image in written.facts["examples"]["images"]] == [50, 50, 100, 100]
    assert [image["classes"] for image in written.facts["examples"]["images"]] == [[0, 1, 2], [0, 1, 2], [0, 2], [0, 2]]


def test_the_page_shows_them(written: Written) -> None:
    text = written.page
    assert "Over 4 images its mIoU is <b>50.0 %</b> at 32 pixels" in text
    assert "mIoU (%) over resolution (pixels)" in text
    assert "IoU of each class (%)" in text
    assert "&lt;green&gt;" in text
    assert "<green>" not in text.partition('id="facts"')[0]
    assert "background: #800000" in text
    assert 'title="95 % interval: +0.00 to +0.00">+0.00' in text
    for word in ("top-1", "Top-1", "Wilson", "McNemar", "Confusion", "None"):
        assert word not in text.partition('id="facts"')[0]


def test_the_pictures_have_the_colours_of_their_classes(written: Written) -> None:
    shown = pictures(written.page)
    assert [picture.shape[:2] for picture in shown] == [(32, 32), (32, 32), (16, 16)] * 4
    given, predicted = shown[0], shown[1]
    blue = np.array([0, 0, 255])
    for picture, kind in ((given, 1), (predicted, 2)):
        assert np.abs(picture[20, 28] - (blue + COLOURS[kind]) / 2).max() < 12
        assert np.abs(picture[20, 4] - (np.array([255, 0, 0]) + COLOURS[0]) / 2).max() < 12
    assert "--shape: 64 / 32" in written.page


@pytest.mark.parametrize(("resize", "shape"), [("pad", (16, 32)), ("short-side", (32, 64))])
def test_pictures_leave_out_what_fills_up(
    written: Written, tmp_path: Path, resize: Any, shape: tuple[int, int]
) -> None:
    page = tmp_path / "x.html"
    write_report(network(), written.folder, page, [32], examples=1, masks=Masks(resize=resize), workers=0, device="cpu")
    assert [picture.shape[:2] for picture in pictures(page.read_text())] == [shape, shape]


def test_an_image_without_labels_has_no_score(written: Written, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for part in ("images", "masks"):
        (data / part / "val").mkdir(parents=True)
        for name in ("0.png", "1.png"):
            (data / part / "val" / name).write_bytes((written.folder / part / "val" / name).read_bytes())
    Image.fromarray(np.full((32, 64), 255, np.uint8)).save(data / "masks" / "val" / "1.png")
    facts = write_report(network(), data, tmp_path / "x.html", [32], workers=0, device="cpu")
    assert [image["scores"]["network"]["32"] for image in facts["examples"]["images"]] == [50, None]
    assert "mIoU –" in (tmp_path / "x.html").read_text(encoding="utf-8")


def test_names_that_do_not_fit_are_refused_before_the_work(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "names").write_text("one\n")
    monkeypatch.setattr("rsconvert.study.report.page.predict", None)
    with pytest.raises(DataError, match="class names are 1; the network has 3 classes"):
        write_report(
            network(),
            written.folder,
            tmp_path / "x.html",
            [32],
            class_names=tmp_path / "names",
            workers=0,
            device="cpu",
        )
    assert not (tmp_path / "x.html").exists()
