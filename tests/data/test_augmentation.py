"""RandAugment and ColorJitter: a function of the seed alone, one draw for all views, and nothing else touched."""

import random
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform

from rsconvert.data.augmentation import augment
from rsconvert.data.loading import training_loader
from rsconvert.data.samples import Samples
from rsconvert.data.views import training_views
from rsconvert.errors import ConfigError

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
BOTH = {"color_jitter": 0.4, "rand_augment": "rand-m9-mstd0.5-inc1"}
SETTINGS = [BOTH, {**BOTH, "color_jitter": None}, {**BOTH, "rand_augment": None}]


def states():
    _, numbers, position, *_ = np.random.get_state()
    return random.getstate(), numbers.tolist(), position, torch.get_rng_state().tolist()


def grey(level, size=(24, 24)):
    return torch.full((3, *size), level, dtype=torch.uint8)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_seed_alone_decides(settings):
    first = augment(PIXELS, 3, **settings)
    random.seed(99)
    np.random.seed(99)
    assert torch.equal(augment(PIXELS, 3, **settings), first)
    assert (first.shape, first.dtype) == (PIXELS.shape, torch.uint8)
    results = {tuple(augment(PIXELS, seed, **settings).flatten().tolist()) for seed in range(12)}
    assert len(results) > 4


def test_global_generators_and_the_pixels_are_left_alone():
    before, pixels = states(), PIXELS.clone()
    augment(PIXELS, 3, **BOTH)
    assert states() == before
    assert torch.equal(PIXELS, pixels)
    with pytest.raises(ConfigError):
        augment(PIXELS, 3, color_jitter=None, rand_augment="rand-x1")
    assert states() == before


def test_rand_augment_is_timms():
    random.seed(5)
    np.random.seed(5)
    expected = rand_augment_transform("rand-m7-n3-mstd0.5", {})(Image.fromarray(PIXELS.numpy()))
    found = augment(PIXELS, 5, color_jitter=None, rand_augment="rand-m7-n3-mstd0.5")
    assert np.array_equal(found.numpy(), np.asarray(expected))


def test_color_jitter_is_brightness_contrast_and_saturation_within_its_strength():
    """A grey image has no saturation, and its contrast is to itself: brightness alone remains, from 0.6 to 1.4."""
    levels = [
        augment(torch.full((2, 2, 3), 100, dtype=torch.uint8), seed, color_jitter=0.4, rand_augment=None)
        for seed in range(200)
    ]
    means = [level.float().mean().item() for level in levels]
    assert 59 <= min(means) < 63
    assert 137 < max(means) <= 141
    assert not torch.equal(augment(PIXELS, 0, color_jitter=0.4, rand_augment=None).float().std(), PIXELS.float().std())


@pytest.mark.parametrize("crop", ["shared", "per-view"])
@pytest.mark.parametrize("flip", ["off", "per-view"])
def test_all_views_are_changed_alike(crop, flip):
    """On an image of one colour the jitter of each view, and a crop's edge by a rotation, would show."""
    for seed in range(10):
        views = training_views(grey(100), (16, 8, 8), Random(seed), crop=crop, flip=flip, color_jitter=0.4)
        assert {int(level) for view in views for level in view.unique()} == {int(views[0][0, 0, 0])}


def test_operations_are_the_same_for_crops_of_their_own():
    """Solarizing, greying and blurring a plain image leaves it plain: another draw would give another colour."""
    image, colours = torch.tensor([90, 160, 230], dtype=torch.uint8)[:, None, None].expand(3, 24, 24), set()
    for seed in range(20):
        views = training_views(image, (16, 16), Random(seed), crop="per-view", rand_augment="rand-m5-mstd2-t3a")
        assert torch.equal(views[0], views[1])
        colours.add(tuple(views[0][:, 0, 0].tolist()))
    assert len(colours) > 2


def test_crops_and_flips_are_those_without():
    image = PIXELS.permute(2, 0, 1)
    plain = training_views(image, (16,), Random(4))
    assert not torch.equal(training_views(image, (16,), Random(4), color_jitter=0.5)[0], plain[0])
    enhanced = [
        training_views(image, (16,), Random(4), rand_augment="rand-m9-p0"),
        training_views(image, (16,), Random(4), color_jitter=None),
    ]
    assert all(torch.equal(views[0], plain[0]) for views in enhanced)


def test_batches_do_not_depend_on_workers():
    generator = np.random.default_rng(1)
    photos = [(Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)), 0) for _ in range(6)]
    samples, before = Samples(photos, "photos", None), states()
    batches = [
        list(training_loader(samples, (12, 8), batch_size=2, seed=1, workers=workers, **BOTH)) for workers in (0, 2)
    ]
    assert states() == before
    for (views, targets), (others, their_targets) in zip(*batches, strict=True):
        assert all(map(torch.equal, views, others))
        assert torch.equal(targets, their_targets)


@pytest.mark.parametrize(
    "config", ["rand", "rand-m9", "rand-m9-n3-p0.5-mstd0.5-mmax15-inc1", "rand-tweights", "rand-t3a", "rand-mstd101"]
)
def test_timms_sections_are_accepted(config):
    augment(PIXELS, 0, color_jitter=None, rand_augment=config)


@pytest.mark.parametrize("inc", ["", "-inc1", "-tweights"])
def test_every_operation_works_at_every_magnitude(inc):
    """Of timm's Posterize, Pillow refuses one end."""
    for magnitude in (0, 10):
        for seed in range(15):
            augment(PIXELS, seed, color_jitter=None, rand_augment=f"rand-m{magnitude}-n9-p1{inc}")


@pytest.mark.parametrize(
    "config", ["", "rand-", "rand-m", "rand-mm9", "rand-w0", "rand-n0", "rand-p2", "rand-inc2", "augmix-m5", "randm9"]
)
def test_unknown_sections_are_refused_with_what_is_accepted(config):
    with pytest.raises(ConfigError, match=r"rand_augment is '.*'; rand and sections .* rand-m9-mstd0\.5-inc1\. Corr"):
        training_views(grey(0), (8,), Random(0), rand_augment=config)


@pytest.mark.parametrize("strength", [0.0, -0.1, float("nan"), float("inf")])
def test_an_unusable_strength_is_refused_at_once(strength):
    with pytest.raises(ConfigError, match=r"color_jitter is .*; a number above 0"):
        training_loader(Samples([], "none", None), (8,), batch_size=1, seed=0, workers=0, color_jitter=strength)
