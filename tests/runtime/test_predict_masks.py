"""predict_masks: the class of each pixel of photos, by a network whose answer is known; its files, and its command."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

import rsconvert
from rsconvert.cli import main
from rsconvert.errors import CheckpointError, ConfigError, UnsupportedModelError
from rsconvert.runtime import PredictedMask, predict_masks, write_masks
from rsconvert.surgery import SwitchableModel


class Brightest(nn.Module):
    """The class of a pixel is its brightest colour, of ``last`` classes."""

    def __init__(self, last: int = 3) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, last, 1, bias=False)
        nn.init.dirac_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.bn(x))


def test_the_kind_of_file_follows_from_the_network() -> None:
    classes, pixels = torch.zeros(2, 2, dtype=torch.int64), torch.zeros(3, 2, 2, dtype=torch.uint8)
    kinds = {count: PredictedMask("x", 32, pixels, classes, None, count).mask().mode for count in (None, 256, 257)}
    assert kinds == {None: "P", 256: "P", 257: "I;16"}
    assert PredictedMask("x", 32, pixels, classes + 256).mask().mode == "I;16"


@pytest.fixture
def net() -> SwitchableModel:
    net = rsconvert.make_switchable(Brightest(), (32, 16), task="segmentation").eval()
    net.source = replace(net.source, class_names=("red", "green", "blue"))
    return net


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Red on the left, blue on the right, 40 by 60 pixels."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30, 0] = pixels[:, 30:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("resize", ["squash", "pad", "short-side"])
@pytest.mark.parametrize("resolution", [32, 24])
def test_each_pixel_gets_its_class(net: SwitchableModel, photo: Path, resize, resolution: int) -> None:
    (found,) = predict_masks(net.train(), photo, resolution=resolution, resize=resize, device="cpu")
    assert (found.image, found.resolution, found.classes.shape) == (str(photo), resolution, (40, 60))
    assert (found.classes[:, :28] == 0).all()
    assert (found.classes[:, 32:] == 2).all()
    assert list(found.shares) == ["red", "blue"] or list(found.shares) == ["blue", "red"]
    assert sum(found.shares.values()) == pytest.approx(100)
    assert net.training


def test_the_files_hold_the_classes_and_the_photo(net: SwitchableModel, photo: Path, tmp_path: Path) -> None:
    (found,) = write_masks(net, [photo], tmp_path / "masks", device="cpu")
    with Image.open(found.mask) as mask, Image.open(found.overlay) as overlay:
        assert mask.mode == "P"
        classes, colours, shown = np.array(mask), np.array(mask.convert("RGB")), np.array(overlay)
    assert set(np.unique(classes)) == {0, 2}
    assert colours[0, 0].tolist() == [0, 0, 0]
    assert colours[0, -1].tolist() == [0, 128, 0]  # the second colour of PASCAL VOC
    assert shown[0, 0].tolist() == [127, 0, 0]
    assert shown[0, -1].tolist() == [0, 64, 127]
    with pytest.raises(CheckpointError, match=r"photo\.png exists; .*--force"):
        write_masks(net, photo, tmp_path / "masks")
    write_masks(net, photo, tmp_path / "masks", force=True, resolution=16)


def test_many_classes_need_sixteen_bits() -> None:
    classes = torch.tensor([[0, 300]])
    found = PredictedMask("0", 32, torch.zeros(3, 1, 2, dtype=torch.uint8), classes)
    assert np.array(found.mask()).tolist() == [[0, 300]]
    assert found.shares == {"0": 50.0, "300": 50.0}
    assert found.overlay().size == (2, 1)


def test_what_can_not_be_is_refused(net: SwitchableModel, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.png").write_bytes(photo.read_bytes())
    (tmp_path / "photo.overlay.png").write_bytes(photo.read_bytes())
    with pytest.raises(ConfigError, match=r"would both become photo\.overlay\.png"):
        write_masks(net, [photo, tmp_path / "photo.overlay.png"], tmp_path / "masks")
    with pytest.raises(ConfigError, match=r"would both become photo\.png"):
        write_masks(net, [photo, tmp_path / "other"], tmp_path / "masks")
    with pytest.raises(ConfigError, match=r"photo\.png is one of the photos; masks need a place of their own"):
        write_masks(net, photo, photo.parent, force=True)
    assert not (tmp_path / "masks").exists()
    with pytest.raises(CheckpointError, match="is a file; masks go into a folder"):
        write_masks(net, photo, photo)
    binary = rsconvert.make_switchable(Brightest(1), (32, 16), task="segmentation")
    with pytest.raises(UnsupportedModelError, match="one number for each position; logits of at least two classes"):
        predict_masks(binary, photo)
    net.source = replace(net.source, task=rsconvert.Task())
    with pytest.raises(UnsupportedModelError, match=r"one prediction for each image; .*rsconvert\.predict"):
        predict_masks(net, photo)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def test_the_command_writes_masks(net: SwitchableModel, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photo.parent)
    monkeypatch.setattr(sys.modules["rsconvert.cli.predict"], "load_network", lambda network, model: net)
    found = run("net", "photo.png", "-o", "masks", "--resolution", 24, "--device", "cpu", "--json")
    assert found.exit_code == 0, found.output
    (image,) = json.loads(found.stdout)["images"]
    assert (image["mask"], image["overlay"]) == ("masks/photo.png", "masks/photo.overlay.png")
    text = run("net", "photo.png", "-o", "others", "--device", "cpu").stdout.splitlines()
    assert text[1].split()[:3] == ["photo.png", "32", "others/photo.png"]
    assert text[-1] == "wrote masks and overlays to others"
    for arguments, words in (
        ((), "output is empty; masks are files, for which a folder is needed: -o FOLDER"),
        (("-o", "m.csv"), r"output is m.csv; masks are files"),
        (("-o", "more", "--top-k", 2), "top_k is 2, which has no effect on masks"),
    ):
        refused = run("net", "photo.png", *arguments)
        assert (refused.exit_code, refused.output.count("\n")) == (1, 1)
        assert words in refused.output
