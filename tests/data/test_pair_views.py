"""Views of an image with its mask: one crop and flip for both, whole images in three ways, batches of them."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from rsconvert.data import Augmentation, MaskReading, Pairs, nearest, open_pairs, training_loader, whole_loader
from rsconvert.data.pair_views import fitted, training_pair, whole_views
from rsconvert.errors import ConfigError, DataError


def gradient(height: int = 60, width: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose red and green say the place of each pixel, and a mask of that red."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([rows * 4, columns * 3, rows * 0]).to(torch.uint8)
    return image, rows.short() * 4


@pytest.mark.parametrize("seed", range(6))
def test_the_mask_follows_the_crop_and_the_flip_of_the_views(seed: int) -> None:
    image, mask = gradient()
    how = Augmentation(crop_area=(0.2, 0.9))
    views, target = training_pair(image, mask, (48, 24), Random(seed), how, [(48, 48)])
    assert (target.shape, target.dtype) == ((48, 48), torch.int16)
    # Red of the view and of the mask say the same row, up to the antialiasing.
    assert (views[0][0].int() - target.int()).abs().float().mean() < 3
    columns = mask * 0 + torch.arange(80).short() * 3
    _, across = training_pair(image, columns, (48, 24), Random(seed), how, [(48, 48)])
    assert (views[0][1].int() - across.int()).abs().float().mean() < 3


def test_masks_at_several_grids_are_taken_from_the_original() -> None:
    image, mask = gradient()
    whole = Augmentation(crop_area=(1.0, 1.0), crop_aspect=(80 / 60, 80 / 60), flip="off")
    _, flat = training_pair(image, mask, (48, 24), Random(0), whole, [(6, 6), (3, 3)])
    assert torch.equal(flat, torch.cat([nearest(mask, 6, 6).flatten(), nearest(mask, 3, 3).flatten()]))


@pytest.mark.parametrize("wrong", [{"crop": "per-view"}, {"flip": "per-view"}, {"rand_augment": "rand-m9"}])
def test_what_a_mask_can_not_follow_is_refused(wrong: dict[str, str]) -> None:
    image, mask = gradient()
    with pytest.raises(ConfigError, match="a mask follows one crop and one flip"):
        training_pair(image, mask, (48,), Random(0), Augmentation(**wrong), [(48, 48)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("resize", "size", "inner"),
    [
        ("squash", 64, (64, 64)),
        ("squash", (32, 64), (32, 64)),
        ("pad", 64, (48, 64)),
        ("pad", (64, 64), (48, 64)),
        ("short-side", 64, (64, 96)),  # 85 pixels, to a multiple of 32
        ("short-side", 48, (48, 64)),  # of 16
    ],
)
def test_a_whole_image_fits_a_size(resize: str, size: int | tuple[int, int], inner: tuple[int, int]) -> None:
    assert fitted((60, 80), size, resize) == inner
    image, _ = gradient()
    (view,) = whole_views(image, [size], resize=resize, interpolation="bilinear", fill=(0.5, 0.5, 0.5))
    outer = inner if resize == "short-side" else (size, size) if isinstance(size, int) else size
    assert view.shape == (3, *outer)
    own = torch.nn.functional.interpolate(
        image[None].contiguous(memory_format=torch.channels_last), inner, mode="bilinear", antialias=True
    )
    assert torch.equal(view[:, : inner[0], : inner[1]], own[0])
    assert view[:, inner[0] :].unique().tolist() in ([], [128])


def test_tall_images_have_a_longer_height() -> None:
    assert fitted((80, 60), 64, "short-side") == (96, 64)
    with pytest.raises(ConfigError, match="size is 32x64 with resize short-side"):
        fitted((80, 60), (32, 64), "short-side")
    with pytest.raises(ConfigError, match="resize is 'crop'"):
        whole_views(gradient()[0], [32], resize="crop", interpolation="bilinear", fill=(0, 0, 0))


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    rng = np.random.default_rng(0)
    for i, (width, height) in enumerate([(20, 16), (16, 16), (20, 16), (20, 16)]):
        for folder, picture in (
            ("train", Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))),
            ("trainannot", Image.fromarray(rng.integers(0, 3, (height, width), dtype=np.uint8))),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture.save(tmp_path / folder / f"{i}.png")
    return open_pairs(str(tmp_path), "train", MaskReading(classes=3))


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_to_train_repeat_with_their_epoch(pairs: Pairs, workers: int) -> None:
    loader = training_loader(pairs, (16, 8), batch_size=2, seed=1, workers=workers, grids=[(16, 16)])
    loader.set_epoch(3)
    first = list(loader)
    loader.set_epoch(3)
    again = list(loader)
    loader.close()
    assert [(v[0].shape, v[1].shape, t.shape) for v, t in first] == [((2, 3, 16, 16), (2, 3, 8, 8), (2, 16, 16))] * 2
    for (views, masks), (others, same) in zip(first, again, strict=True):
        assert torch.equal(masks, same)
        assert all(torch.equal(a, b) for a, b in zip(views, others, strict=True))


def test_batches_to_evaluate_are_whole_and_in_order(pairs: Pairs) -> None:
    loader = whole_loader(pairs, (16, 8), batch_size=3, workers=0, resize="short-side")
    (views, masks), (last, _) = list(loader)
    assert [tuple(view.shape) for view in views[0]] == [(3, 16, 16)] * 3
    assert [tuple(mask.shape) for mask in masks] == [(16, 20), (16, 16), (16, 20)]
    assert torch.equal(masks[1], pairs.open_pair(1)[1])
    assert last[1].shape == (1, 3, 8, 8)
    shares = [whole_loader(pairs, (8,), batch_size=1, workers=0, resize="squash", rank=r, world_size=2) for r in (0, 1)]
    seen = [[mask.shape[1] for _, group in share for mask in group] for share in shares]
    assert seen == [[20, 20], [16, 20]]


def test_sizes_that_differ_come_one_by_one(tmp_path: Path) -> None:
    for i, width in enumerate((64, 32)):
        for folder in ("train", "trainannot"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("L", (width, 32)).save(tmp_path / folder / f"{i}.png")
    pairs = open_pairs(str(tmp_path), "train", MaskReading(classes=1))
    ((views, _),) = whole_loader(pairs, (32,), batch_size=2, workers=0, resize="short-side")
    assert [tuple(view.shape) for view in views[0]] == [(3, 32, 64), (3, 32, 32)]


def test_an_error_of_a_worker_is_one_line(pairs: Pairs, tmp_path: Path) -> None:
    Image.new("RGB", (20, 16), (1, 2, 3)).save(tmp_path / "trainannot" / "2.png")
    with pytest.raises(DataError, match=r"2\.png has the mode RGB"):
        list(whole_loader(pairs, (8,), batch_size=2, workers=1, resize="squash"))
