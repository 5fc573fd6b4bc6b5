"""One image → S views: what is cut, from which pixels, how it is changed, and what is refused."""

import dataclasses
import io
import math
import random
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torchvision.transforms import functional as torchvision_functional

from rsconvert.data.decoding import EncodedImage
from rsconvert.data.views import (
    PAPER_PREPROCESSING,
    Augmentation,
    Preprocessing,
    augment,
    crop_shares,
    evaluation_views,
    normalize,
    training_views,
)
from rsconvert.errors import ConfigError, ResolutionError

RESOLUTIONS = (64, 48, 32)


def smooth(height=90, width=120):
    """Red rises to the right by 2 a pixel, green downwards, blue in waves."""
    rows, columns = np.mgrid[:height, :width]
    waves = 128 + 100 * np.sin(rows / 9) * np.cos(columns / 7)
    return np.stack([2 * columns, 2 * rows, waves], axis=-1).clip(0, 255).astype(np.uint8)


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def tensor(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1)


def box_of(view):
    """The crop of `smooth` that a view shows: left and right from red, top and bottom from green."""
    red, green = view[0, 0].float() / 2, view[1, :, 0].float() / 2
    return torch.stack([red[0], red[-1], green[0], green[-1]])


IMAGE = tensor(smooth())


def test_views_are_uint8_squares_and_a_resolution_may_repeat():
    views = training_views(IMAGE, (64, 32, 32), Random(0))
    assert [tuple(view.shape) for view in views] == [(3, 64, 64), (3, 32, 32), (3, 32, 32)]
    assert all(view.dtype == torch.uint8 for view in views)
    assert torch.equal(views[1], views[2])


@pytest.mark.parametrize("seed", range(8))
def test_all_views_show_one_crop(seed):
    """A pixel's centre lies half a pixel of the view inside the crop, hence the tolerance."""
    boxes = [box_of(view) for view in training_views(IMAGE, RESOLUTIONS, Random(seed))]
    for box in boxes[1:]:
        assert (box - boxes[0]).abs().max() < 120 / 32


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_view_is_the_resized_crop_of_the_original_pixels(interpolation):
    """Pillow resizes the crop that the same draws give; any detour over another view would be blurred further.

    Away from 0 and 255, where bicubic's overshoot is cut off, it does not matter whether rows or columns come first.
    """
    pixels = np.random.default_rng(0).integers(64, 192, (90, 120, 3), dtype=np.uint8)
    views = training_views(
        tensor(pixels), RESOLUTIONS, Random(3), Augmentation(flip="off", interpolation=interpolation)
    )
    rng = Random(3)
    area, aspect = 90 * 120 * rng.uniform(0.08, 1), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    top, left = rng.randint(0, 90 - height), rng.randint(0, 120 - width)
    crop = Image.fromarray(pixels).crop((left, top, left + width, top + height))
    for view, r in zip(views, RESOLUTIONS, strict=True):
        expected = np.asarray(crop.resize((r, r), Image.Resampling[interpolation.upper()])).astype(int)
        assert np.abs(view.permute(1, 2, 0).numpy() - expected).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_encoded_image_gives_the_crop_of_the_decoded_one(kind):
    """The red and green ramps tell the box: a reduced JPEG may miss it by half of its own pixels."""
    pixels = smooth(110, 125).repeat(8, axis=0).repeat(8, axis=1)
    image = EncodedImage(encoded(Image.fromarray(pixels), kind, quality=95), "x")
    for seed in range(12):
        how = Augmentation(crop_area=(0.2, 1), flip=("off", "shared")[seed % 2], crop=("shared", "per-view")[seed % 2])
        views = training_views(image, (48, 32), Random(seed), how)
        for view, whole in zip(views, training_views(tensor(pixels), (48, 32), Random(seed), how), strict=True):
            assert (box_of(view) - box_of(whole)).abs().max() < 1.5
            assert (view.int() - whole.int()).abs().float().mean() < (3 if kind == "JPEG" else 0.01)


@pytest.mark.parametrize(
    ("side", "resolutions", "expected"),
    [(255, (64, 32), 1), (256, (64, 32), 2), (511, (64,), 2), (512, (64, 32), 4), (1024, (64, 32), 8), (400, (8,), 8)],
)
def test_a_jpeg_is_reduced_as_far_as_its_crop_stays_twice_the_largest_view(side, resolutions, expected, monkeypatch):
    image, seen = EncodedImage(encoded(Image.new("RGB", (side, side)), "JPEG"), "x"), []
    monkeypatch.setattr(image, "decode", lambda reduction: seen.append(reduction) or IMAGE)
    training_views(image, resolutions, Random(0), Augmentation(crop_area=(1, 1), crop_aspect=(1, 1)))
    assert seen == [expected]


def test_crop_areas_and_aspects_keep_to_their_ranges():
    rng, shares, aspects = Random(0), [], []
    how = Augmentation(crop_area=(0.2, 0.5), crop_aspect=(0.8, 1.25), flip="off")
    for _ in range(200):
        (view,) = training_views(IMAGE, (240,), rng, how)
        left, right, top, bottom = box_of(view).tolist()
        width, height = right - left + 1, bottom - top + 1
        shares.append(width * height / (90 * 120))
        aspects.append(width / height)
    assert 0.19 < min(shares) < 0.22
    assert 0.48 < max(shares) < 0.51
    assert abs(np.mean(shares) - 0.35) < 0.02
    assert 0.78 < min(aspects) < 0.83
    assert 1.2 < max(aspects) < 1.28


def test_an_impossible_shape_falls_back_to_the_largest_centred_crop():
    """No box of 95 % of a 20 × 200 image has an aspect up to 4/3: the fallback is 20 high, 27 wide, in the middle."""
    columns = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (20, 200, 3)).copy()
    (view,) = training_views(tensor(columns), (27,), Random(0), Augmentation(crop_area=(0.95, 1.0), flip="off"))
    assert view[0, 0].tolist() == list(range(86, 113))


def test_the_whole_square_at_its_own_size_is_untouched():
    square = IMAGE[:, :64, :64]
    (view,) = training_views(square, (64,), Random(0), Augmentation(crop_area=(1, 1), crop_aspect=(1, 1), flip="off"))
    assert torch.equal(view, square)


def test_a_flip_mirrors_every_view_for_half_the_seeds():
    mirrored = 0
    for seed in range(200):
        plain = training_views(IMAGE, (16, 8), Random(seed), Augmentation(flip="off"))
        views = training_views(IMAGE, (16, 8), Random(seed))
        flips = [torch.equal(a, b.flip(-1)) for a, b in zip(views, plain, strict=True)]
        assert flips in ([True, True], [False, False])
        assert flips[0] or all(map(torch.equal, views, plain))
        mirrored += flips[0]
    assert 75 < mirrored < 125


def test_flips_per_view_differ_and_leave_the_crop_alone():
    patterns = set()
    for seed in range(40):
        plain = training_views(IMAGE, RESOLUTIONS, Random(seed), Augmentation(flip="off"))
        views = training_views(IMAGE, RESOLUTIONS, Random(seed), Augmentation(flip="per-view"))
        pattern = tuple(torch.equal(a, b.flip(-1)) for a, b in zip(views, plain, strict=True))
        assert all(flipped or torch.equal(a, b) for flipped, a, b in zip(pattern, views, plain, strict=True))
        patterns.add(pattern)
    assert len(patterns) == 8


def test_crops_per_view_differ_and_the_first_is_the_shared_one():
    shared = training_views(IMAGE, (32, 32, 32), Random(1), Augmentation(flip="off"))
    apart = training_views(IMAGE, (32, 32, 32), Random(1), Augmentation(flip="off", crop="per-view"))
    assert torch.equal(shared[0], apart[0])
    assert (box_of(apart[1]) - box_of(apart[0])).abs().max() > 3
    assert (box_of(apart[2]) - box_of(apart[1])).abs().max() > 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1)])
def test_tiny_and_thin_images_work(shape):
    image = torch.full((3, *shape), 9, dtype=torch.uint8)
    for views in (
        training_views(image, (32,), Random(0)),
        evaluation_views(image, (32,), crop_pct=0.875, interpolation="bicubic"),
    ):
        assert torch.equal(views[0], torch.full((3, 32, 32), 9, dtype=torch.uint8))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(90, 120), (120, 90), (37, 51)])
def test_evaluation_agrees_with_pillow(interpolation, size):
    pixels = smooth(*size)
    views = evaluation_views(tensor(pixels), RESOLUTIONS, crop_pct=(0.875, 0.95, 1.0), interpolation=interpolation)
    for view, r, share in zip(views, RESOLUTIONS, (0.875, 0.95, 1.0), strict=True):
        short, picture = int(r / share), Image.fromarray(pixels)
        scale = short / min(picture.size)
        w, h = (short if side == min(picture.size) else int(side * scale) for side in picture.size)
        left, top = round((w - r) / 2), round((h - r) / 2)
        resized = picture.resize((w, h), Image.Resampling[interpolation.upper()])
        expected = np.asarray(resized.crop((left, top, left + r, top + r))).astype(int)
        assert view.shape == (3, r, r)
        assert np.abs(view.permute(1, 2, 0).numpy() - expected).mean() < 0.5


def test_evaluation_crops_the_middle():
    """16 columns of 0…15 at scale 1: the short side stays 16 = int(8 / 0.5), the middle 8 are 4…11."""
    columns = np.broadcast_to(np.arange(16, dtype=np.uint8)[None, :, None], (16, 16, 3)).copy()
    (view,) = evaluation_views(tensor(columns), (8,), crop_pct=0.5, interpolation="bilinear")
    assert view[0, 0].tolist() == list(range(4, 12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_normalize_is_its_formula(dtype):
    batch = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    result = normalize(batch, PAPER_PREPROCESSING, dtype=dtype, memory_format=torch.channels_last)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (batch.numpy() / 255 - mean[:, None, None]) / std[:, None, None]
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert np.abs(result.double().numpy() - expected).max() < (0.01 if dtype == torch.bfloat16 else 2e-6)


def test_preprocessing_takes_lists_as_json_gives_them():
    listed = Preprocessing(mean=[0, 0, 0], std=[1, 1, 1], crop_pct=[0.9, 1])  # type: ignore[arg-type]
    assert listed == Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), crop_pct=(0.9, 1))
    assert Preprocessing() == PAPER_PREPROCESSING
    with pytest.raises(dataclasses.FrozenInstanceError):
        listed.mean = (1, 1, 1)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mean": (0.5, 0.5)}, "mean has 2 numbers, std 3; both need one per channel"),
        ({"mean": (0.5, 0.5, math.nan)}, "mean is .* finite numbers"),
        ({"mean": ()}, r"mean is \(\); finite numbers"),
        ({"std": "abc"}, "std is 'abc'; finite numbers"),
        ({"std": (0.2, 0.0, 0.2)}, "std is .* from 0.0001"),
        ({"interpolation": "lanczos"}, "interpolation is 'lanczos'; choose one of bilinear, bicubic"),
        ({"crop_pct": 0}, "crop_pct is 0; choose numbers from 0.05 to 1"),
        ({"crop_pct": 87.5}, "crop_pct is 87.5"),
        ({"crop_pct": (0.9, 1.1)}, "crop_pct is 0.9, 1.1"),
        ({"crop_pct": ()}, "crop_pct is empty"),
    ],
)
def test_unusable_preprocessing_is_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        Preprocessing(**setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"crop_area": (0, 1)}, r"crop_area is \(0, 1\)"),
        ({"crop_area": (0.5, 0.2)}, "crop_area"),
        ({"crop_area": (0.5, 1.2)}, "crop_area"),
        ({"crop_aspect": (-1, 1)}, "crop_aspect"),
        ({"crop_aspect": (2, 1)}, "crop_aspect"),
        ({"crop": "off"}, "crop is 'off'; choose one of shared, per-view"),
        ({"flip": "never"}, "flip is 'never'; choose one of shared, per-view, off"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'"),
    ],
)
def test_unusable_augmentation_is_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        Augmentation(**setting)


@pytest.mark.parametrize("resolutions", [(), (0,), (-32,), (32.5,)])
def test_unusable_resolutions_are_refused(resolutions):
    with pytest.raises(ResolutionError, match="give at least one positive integer"):
        training_views(IMAGE, resolutions, Random(0))
    with pytest.raises(ResolutionError, match="give at least one positive integer"):
        evaluation_views(IMAGE, resolutions, crop_pct=0.875, interpolation="bilinear")


def test_one_crop_pct_per_resolution_is_counted():
    with pytest.raises(ConfigError, match="crop_pct has 2 numbers for 3 resolutions"):
        evaluation_views(IMAGE, RESOLUTIONS, crop_pct=(0.9, 0.9), interpolation="bilinear")


@pytest.mark.parametrize(("height", "width"), [(30, 44), (44, 30), (40, 40)])
def test_a_pair_of_sides_gives_the_centre_of_an_image_that_covers_them(height: int, width: int) -> None:
    """Against torchvision: resized to cover both sides / crop_pct, then cut in the middle."""
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (view,) = evaluation_views(image, [(24, 32)], crop_pct=0.8, interpolation="bilinear")
    scale = max(30 / height, 40 / width)
    covering = [round(side * scale) if side * scale in (30, 40) else int(side * scale) for side in (height, width)]
    resized = torchvision_functional.resize(image, covering, antialias=True)
    wanted = torchvision_functional.center_crop(resized, [24, 32])
    assert view.shape == (3, 24, 32)
    assert (view.int() - wanted.int()).abs().max() <= 1


def test_a_pair_of_equal_sides_is_the_square() -> None:
    image = torch.randint(0, 256, (3, 37, 61), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    square, pair = evaluation_views(image, [24, (24, 24)], crop_pct=0.875, interpolation="bicubic")
    assert torch.equal(square, pair)


PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
BOTH = Augmentation(color_jitter=0.4, rand_augment="rand-m9-mstd0.5-inc1")
SETTINGS = [BOTH, dataclasses.replace(BOTH, color_jitter=None), dataclasses.replace(BOTH, rand_augment=None)]


def states():
    _, numbers, position, *_ = np.random.get_state()
    return random.getstate(), numbers.tolist(), position, torch.get_rng_state().tolist()


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_seed_alone_decides(settings):
    first = augment(PIXELS, 3, settings)
    random.seed(99)
    np.random.seed(99)
    assert torch.equal(augment(PIXELS, 3, settings), first)
    assert (first.shape, first.dtype) == (PIXELS.shape, torch.uint8)
    results = {tuple(augment(PIXELS, seed, settings).flatten().tolist()) for seed in range(12)}
    assert len(results) > 4


def test_global_generators_and_the_pixels_are_left_alone():
    before, pixels = states(), PIXELS.clone()
    augment(PIXELS, 3, BOTH)
    assert states() == before
    assert torch.equal(PIXELS, pixels)


def test_rand_augment_is_timms():
    random.seed(5)
    np.random.seed(5)
    expected = rand_augment_transform("rand-m7-n3-mstd0.5", {})(Image.fromarray(PIXELS.numpy()))
    found = augment(PIXELS, 5, Augmentation(rand_augment="rand-m7-n3-mstd0.5"))
    assert np.array_equal(found.numpy(), np.asarray(expected))


def test_color_jitter_is_brightness_contrast_and_saturation_within_its_strength():
    """A grey image has no saturation, and its contrast is to itself: brightness alone remains, from 0.6 to 1.4."""
    jitter, plain = Augmentation(color_jitter=0.4), torch.full((2, 2, 3), 100, dtype=torch.uint8)
    levels = [augment(plain, seed, jitter) for seed in range(200)]
    means = [level.float().mean().item() for level in levels]
    assert 59 <= min(means) < 63
    assert 137 < max(means) <= 141
    assert not torch.equal(augment(PIXELS, 0, jitter).float().std(), PIXELS.float().std())


@pytest.mark.parametrize("crop", ["shared", "per-view"])
@pytest.mark.parametrize("flip", ["off", "per-view"])
def test_all_views_are_changed_alike(crop, flip):
    """On an image of one colour the jitter of each view, and a crop's edge by a rotation, would show."""
    for seed in range(10):
        views = training_views(
            torch.full((3, 24, 24), 100, dtype=torch.uint8),
            (16, 8, 8),
            Random(seed),
            Augmentation(crop=crop, flip=flip, color_jitter=0.4),
        )
        assert {int(level) for view in views for level in view.unique()} == {int(views[0][0, 0, 0])}


def test_operations_are_the_same_for_crops_of_their_own():
    """Solarizing, greying and blurring a plain image leaves it plain: another draw would give another colour."""
    image, colours = torch.tensor([90, 160, 230], dtype=torch.uint8)[:, None, None].expand(3, 24, 24), set()
    how = Augmentation(crop="per-view", rand_augment="rand-m5-mstd2-t3a")
    for seed in range(20):
        views = training_views(image, (16, 16), Random(seed), how)
        assert torch.equal(views[0], views[1])
        colours.add(tuple(views[0][:, 0, 0].tolist()))
    assert len(colours) > 2


def test_other_channels_have_the_averages_of_three():
    how = Preprocessing(mean=(0.5, 0.25, 0.0), std=(1.0, 0.5, 0.0625), crop_pct=(1.0, 0.5))
    assert how.for_channels(3) is how
    assert how.for_channels(1) == Preprocessing(mean=(0.25,), std=(0.5208333333333334,), crop_pct=(1.0, 0.5))
    assert how.for_channels(4).mean == (0.25,) * 4
    assert (how.channels, how.for_channels(4).channels) == (3, 4)


def test_views_in_grey_are_cut_out_of_the_grey_image():
    picture = Image.fromarray(smooth())
    image, grey = (
        torch.from_numpy(np.array(p.convert("RGB"))).permute(2, 0, 1) for p in (picture, picture.convert("L"))
    )
    evaluated = [evaluation_views(x, (32,), crop_pct=1, interpolation="bilinear", channels=1)[0] for x in (image, grey)]
    trained = [training_views(x, (32, 16), Random(3), channels=1)[0] for x in (image, grey)]
    for own, alike in (evaluated, trained):
        assert own.shape == (1, 32, 32)
        assert torch.equal(own, alike)
        assert own.float().std() > 10
    expected = picture.convert("L").resize((42, 32), Image.Resampling.BILINEAR).crop((5, 0, 37, 32))
    assert np.abs(evaluated[0][0].numpy() - np.asarray(expected, float)).max() <= 1


def test_a_change_of_a_grey_crop_leaves_it_grey():
    grey = torch.full((1, 24, 24), 100, dtype=torch.uint8)
    how = Augmentation(color_jitter=0.4, rand_augment="rand-m9-n3-mstd0.5")
    views = training_views(grey.expand(3, 24, 24), (16,), Random(1), how, channels=1)
    assert views[0].shape == (1, 16, 16)
    assert not torch.equal(views[0], grey[:, :16, :16])


def test_one_mean_normalizes_grey():
    found = normalize(torch.tensor([[[[0, 255]]]], dtype=torch.uint8), Preprocessing(mean=(0.5,), std=(0.25,)))
    assert found.tolist() == [[[[-2.0, 2.0]]]]


def test_crops_and_flips_are_those_without():
    image = PIXELS.permute(2, 0, 1)
    plain = training_views(image, (16,), Random(4))
    assert not torch.equal(training_views(image, (16,), Random(4), Augmentation(color_jitter=0.5))[0], plain[0])
    never = Augmentation(rand_augment="rand-m9-p0")
    assert torch.equal(training_views(image, (16,), Random(4), never)[0], plain[0])


@pytest.mark.parametrize(
    "config", ["rand", "rand-m9", "rand-m9-n3-p0.5-mstd0.5-mmax15-inc1", "rand-tweights", "rand-t3a", "rand-mstd101"]
)
def test_timms_sections_are_accepted(config):
    augment(PIXELS, 0, Augmentation(rand_augment=config))


@pytest.mark.parametrize("inc", ["", "-inc1", "-tweights"])
def test_every_operation_works_at_every_magnitude(inc):
    """Of timm's Posterize, Pillow refuses one end."""
    for magnitude in (0, 10):
        for seed in range(15):
            augment(PIXELS, seed, Augmentation(rand_augment=f"rand-m{magnitude}-n9-p1{inc}"))


@pytest.mark.parametrize(
    "config", ["", "rand-", "rand-m", "rand-mm9", "rand-w0", "rand-n0", "rand-p2", "rand-inc2", "augmix-m5", "randm9"]
)
def test_unknown_sections_are_refused_with_what_is_accepted(config):
    with pytest.raises(ConfigError, match=r"rand_augment is '.*'; rand and sections .* rand-m9-mstd0\.5-inc1\.$"):
        Augmentation(rand_augment=config)


@pytest.mark.parametrize("strength", [0.0, -0.1, float("nan"), float("inf")])
def test_an_unusable_strength_is_refused_at_once(strength):
    with pytest.raises(ConfigError, match=r"color_jitter is .*; a number above 0"):
        Augmentation(color_jitter=strength)


def test_an_untrained_size_takes_a_crop_between_its_neighbours() -> None:
    preprocessing = Preprocessing(crop_pct=(1.0, 0.9))
    found = crop_shares(preprocessing, (32, 16), (40, 32, (28, 28), 24, 18, 16, 8))
    assert found == pytest.approx((1.0, 1.0, 0.975, 0.95, 0.9125, 0.9, 0.9), abs=1e-12)
    assert (found[1], found[-2]) == (1.0, 0.9)  # exactly where it is trained
    assert crop_shares(Preprocessing(crop_pct=(0.7, 0.7, 0.7)), (9, 6, 2), range(1, 12)) == (0.7,) * 11
    assert crop_shares(Preprocessing(crop_pct=0.8), (), (40, 8)) == (0.8, 0.8)
    with pytest.raises(ConfigError, match="crop_pct has 2 numbers; 3 are needed"):
        crop_shares(preprocessing, (32, 24, 16), (32,))
