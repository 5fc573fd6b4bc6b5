"""Photos in any form give the same pixels; a view equals Pillow's and NumPy's; what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rsconvert.data import Preprocessing, photo_samples, prepare_photo
from rsconvert.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos, one of them deep, a hidden one, and a file that is no image."""
    (tmp_path / "deep").mkdir()
    for name in ("b10.png", "b9.png", "deep/a.PNG", ".hidden.png"):
        Image.fromarray(PIXELS).save(tmp_path / name, "PNG")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_files_folders_and_images_in_memory_come_in_their_order(folder: Path) -> None:
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    photos = [folder / "b9.png", Image.fromarray(PIXELS), PIXELS, tensor, str(folder)]
    samples = photo_samples(photos)
    found = [f"{folder}/{name}" for name in ("b9.png", "b10.png", "deep/a.PNG")]
    assert [samples.name(i) for i in range(len(samples))] == [found[0], "1", "2", "3", *found]
    for i in range(len(samples)):
        image, target = samples.read(i)
        assert torch.equal(image, tensor)
        assert target == 0


def test_one_photo_needs_no_list(folder: Path) -> None:
    assert [len(photo_samples(one)) for one in (str(folder / "b9.png"), PIXELS, Image.fromarray(PIXELS))] == [1] * 3


def test_grey_pixels_become_three_colours() -> None:
    grey = PIXELS[:, :, 0]
    image, _ = photo_samples(grey).read(0)
    assert np.array_equal(image.numpy(), np.stack([grey] * 3))


def test_a_network_of_one_channel_gets_grey() -> None:
    grey, how = Image.fromarray(PIXELS).convert("L"), Preprocessing(mean=(0.5,), std=(0.25,), crop_pct=1.0)
    given = [PIXELS, grey, np.asarray(grey), torch.from_numpy(np.array(grey))[None]]
    found = [prepare_photo(photo, how, (40,), 40) for photo in given]
    expected = (np.asarray(grey, np.float64)[:, 10:50] / 255 - 0.5) / 0.25
    assert all(torch.equal(view, found[0]) for view in found)
    np.testing.assert_allclose(found[0][0, 0].numpy(), expected, atol=1e-6)
    with pytest.raises(DataError, match="takes images of 4 channels; a photo has 3, or 1"):
        prepare_photo(PIXELS, how.for_channels(4), (40,), 40)


def test_a_view_is_cropped_resized_and_normalized(folder: Path) -> None:
    how = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0), crop_pct=(1.0, 0.5))
    found = prepare_photo(folder / "b9.png", how, (32, 16), 16)
    # The crop of 16 out of the image resized to a short side of 32 is the central half: 20 of 40 pixels.
    view = Image.fromarray(PIXELS).resize((48, 32), Image.Resampling.BILINEAR).crop((16, 8, 32, 24))
    expected = (np.asarray(view, np.float64) / 255 - how.mean) / how.std
    assert found.shape == (1, 3, 16, 16)
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=1.01 / 255 / 0.25)
    assert torch.equal(found, prepare_photo(PIXELS, how, (32, 16), 16))
    between = prepare_photo(PIXELS, how, (32, 16), 24)  # a share of 0.75, so that 24 of 32 pixels remain
    view = Image.fromarray(PIXELS).resize((48, 32), Image.Resampling.BILINEAR).crop((12, 4, 36, 28))
    expected = (np.asarray(view, np.float64) / 255 - how.mean) / how.std
    np.testing.assert_allclose(between[0].permute(1, 2, 0).numpy(), expected, atol=1.01 / 255 / 0.25)


@pytest.mark.parametrize(
    ("photo", "words"),
    [
        ("nowhere.jpg", "nowhere.jpg does not exist; a photo or a folder"),
        ([], "images is empty"),
        (torch.zeros(3, 8, 8), r"an image is torch.float32 of shape \(3, 8, 8\); a file"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"torch.uint8 of shape \(8, 8, 3\)"),
        (np.zeros((8, 8, 4), dtype=np.uint8), r"uint8 of shape \(8, 8, 4\)"),
        ([5], "an image is 5; a file"),
    ],
)
def test_what_is_no_photo_is_refused(photo: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        photo_samples(photo)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        photo_samples(tmp_path)


def test_a_broken_file_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"notes.txt can't be decoded \(no known image format\)"):
        prepare_photo(folder / "notes.txt", Preprocessing(), (), 16)
