"""Broken images pass up to a number, each named once; what is left is what a folder without them would give."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from rsconvert.data import (
    MaskReading,
    Samples,
    evaluation_loader,
    open_pairs,
    open_split,
    training_loader,
    without_broken,
)
from rsconvert.data.streams import Stream
from rsconvert.errors import ConfigError, DataError

BROKEN = ("a/1.png", "b/0.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of four images each; one is empty, the other half of a file."""
    for place, name in enumerate(f"{c}/{i}" for c in "ab" for i in range(4)):
        path = tmp_path / "photos" / "val" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((24, 20), 10 + place).convert("RGB").save(path)
    empty, half = (tmp_path / "photos" / "val" / name for name in BROKEN)
    empty.write_bytes(b"")
    half.write_bytes(half.read_bytes()[:200])
    return tmp_path / "photos"


def whole(photos: Path, tmp_path: Path) -> Samples:
    """The same folder without the broken images."""
    shutil.copytree(photos, tmp_path / "whole")
    for name in BROKEN:
        (tmp_path / "whole" / "val" / name).unlink()
    return open_split(str(tmp_path / "whole"), "val")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_left_is_the_folder_without_them(
    photos: Path,
    tmp_path: Path,
    workers: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rsconvert.data.broken._BATCH", 3)
    (found,) = without_broken([open_split(str(photos), "val")], 2, workers=workers)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" can't")[0] for line in lines] == [f"note: skipped: {photos}/val/{name}" for name in BROKEN]
    assert "the file is empty" in lines[0]
    expected = whole(photos, tmp_path)
    assert len(found) == len(expected) == 6
    sides, given = (16, 12), {"batch_size": 3, "workers": 0}
    evaluated = [evaluation_loader(samples, sides, **given) for samples in (found, expected)]
    trained = [training_loader(samples, sides, seed=1, **given) for samples in (found, expected)]
    for one, other in (evaluated, trained):
        for (views, target), (others, wanted) in zip(one, other, strict=True):
            assert target.tolist() == wanted.tolist()
            assert all(torch.equal(a, b) for a, b in zip(views, others, strict=True))


def test_one_more_is_refused_by_name(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = open_split(str(photos), "val")
    with pytest.raises(
        DataError, match=r"b/0\.png can't be decoded .* 1 before it were skipped.*--skip-broken"
    ) as caught:
        without_broken([samples], 1)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"a/1\.png .* 2 before it were skipped"):  # in all splits together
        without_broken([samples, samples], 2)
    caplog.clear()
    assert [len(each) for each in without_broken([samples, samples], 4, quiet=True)] == [6, 6]
    assert caplog.records == []


def test_zero_reads_nothing(photos: Path) -> None:
    samples = open_split(str(photos), "val")
    assert without_broken([samples], 0) == [samples]


def test_a_broken_mask_counts_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    for i, value in enumerate((0, 1, 9)):
        for folder, mode, colour in (("train", "RGB", (5, 5, 5)), ("trainannot", "L", value)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new(mode, (8, 8), colour).save(tmp_path / folder / f"{i}.png")
    (tmp_path / "trainannot" / "0.png").write_bytes(b"no image")
    pairs = open_pairs(str(tmp_path), "train", MaskReading(classes=10))
    assert [each.name(0) for each in without_broken([pairs], 1, quiet=True)] == [str(tmp_path / "train" / "1.png")]
    with pytest.raises(DataError, match=r"2\.png has the value 9; 0 to 2"):
        without_broken([open_pairs(str(tmp_path), "train", MaskReading(classes=3))], 5, quiet=True)


def test_what_can_not_be_skipped_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(2):
        (tmp_path / "val" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / "a" / f"{i}.jpg").write_bytes(b"")
    samples = open_split(str(tmp_path), "val")
    with pytest.raises(DataError, match=r"none of the 2 images of .* can be read"):
        without_broken([samples], 5, quiet=True)
    with pytest.raises(ConfigError, match="skip_broken is -1; a number of images of 0 or more"):
        without_broken([samples], -1)
    stream = Stream.__new__(Stream)
    stream.label = "wds/x train"
    with pytest.raises(ConfigError, match="skip_broken is 1, and wds/x train can only be read in order"):
        without_broken([stream], 1)
    assert logging.getLogger("rsconvert").handlers == []
