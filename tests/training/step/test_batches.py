"""Batches: what the loader gives, normalized, mapped and mixed; the same wherever an epoch is entered."""

import random
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from timm.data.mixup import Mixup
from torch import Tensor

from rsconvert.data import Augmentation, normalize, open_train_val, training_loader
from rsconvert.errors import ConfigError, DataError
from rsconvert.evaluation import Processes
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.step.batches import Feed, mix

MakeNet = Callable[..., SwitchableModel]


def feed_of(net: SwitchableModel, photos: str, rank: int = 0, classes: int | None = None, **settings: Any) -> Feed:
    config = FinetuneConfig(**{"batch_size": 4, "workers": 0, "seed": 3, **settings})
    train, _ = open_train_val(photos)
    return Feed(net, train, config, Processes(rank, 1 + rank, torch.device("cpu")), classes)


def taken(feed: Feed, start: int = 0, stop: int = 6) -> list[tuple[list[Tensor], Tensor]]:
    return list(feed.batches(1, start, stop))


def same(one: tuple[list[Tensor], Tensor], other: tuple[list[Tensor], Tensor]) -> bool:
    return torch.equal(one[1], other[1]) and all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))


def test_the_views_are_the_loaders_normalized(net: SwitchableModel, photos: str) -> None:
    train, _ = open_train_val(photos)
    loader = training_loader(
        train, (32, 24, 16), batch_size=4, seed=3, workers=0, augmentation=Augmentation(crop_area=(0.35, 1.0))
    )
    loader.set_epoch(1)
    feed = feed_of(net, photos)
    assert len(feed) == 6
    for (views, target), (inputs, labels) in zip(loader, taken(feed), strict=True):
        wanted = [normalize(view, net.source.preprocessing) for view in views]
        assert same((inputs, labels), (wanted, target))
        assert all(x.is_contiguous(memory_format=torch.channels_last) for x in inputs)


@pytest.mark.parametrize("settings", [{}, {"mixup": 0.4, "cutmix": 1.0}])
def test_an_epoch_is_entered_anywhere(net: SwitchableModel, photos: str, settings: dict[str, Any]) -> None:
    feed = feed_of(net, photos, **settings)
    whole = taken(feed)
    for start, stop in ((0, 6), (2, 6), (5, 6), (6, 6), (1, 4)):
        part = taken(feed, start, stop)
        assert len(part) == stop - start
        assert all(same(a, b) for a, b in zip(part, whole[start:stop], strict=True))


def test_mixed_targets_have_the_classes_of_the_data(make_net: MakeNet, photos: str) -> None:
    (_, outputs), *_ = taken(feed_of(make_net(classes=7), photos, mixup=0.4))
    (_, target), *_ = taken(feed_of(make_net(classes=7), photos, classes=3, mixup=0.4))
    assert (outputs.shape, target.shape) == ((4, 7), (4, 3))


def test_mixing_is_drawn_by_seed_epoch_batch_and_rank(make_net: MakeNet, photos: str) -> None:
    plain, mixed = taken(feed_of(make_net(), photos)), taken(feed_of(make_net(), photos, mixup=0.4))
    for number, ((views, target), found) in enumerate(zip(plain, mixed, strict=True)):
        assert same(found, mix(views, target, 3, mixup=0.4, cutmix=0.0, rng=Random(f"3-1-{number}-0")))


def test_sizes_must_be_one_per_resolution(net: SwitchableModel, photos: str) -> None:
    with pytest.raises(ConfigError, match="view_sizes has 2 numbers; 3 are needed"):
        feed_of(net, photos, view_sizes=(32, 32))


@pytest.mark.parametrize("settings", [{}, {"mixup": 0.4, "cutmix": 1.0, "crop": "per-view"}])
def test_the_views_that_are_drawn_are_those_of_the_batch(
    make_net: MakeNet, photos: str, settings: dict[str, Any]
) -> None:
    feed = feed_of(make_net((32, 28, 24, 20, 16)), photos, views="sandwich", **settings)
    whole = taken(feed)
    for views, _ in whole:
        sides = [view.shape[-1] for view in views]
        assert (sides[0], sides[-1], sorted(sides[1:4])[:2]) == (32, 16, [0, 0])
    assert len({tuple(view.shape for view in views) for views, _ in whole}) > 1
    assert all(same(a, b) for a, b in zip(taken(feed, 2), whole[2:], strict=True))
    ranks = [taken(feed_of(make_net((32, 28, 24, 20, 16)), photos, rank, views="sandwich"), stop=3) for rank in (0, 1)]
    assert [[v.shape for v in views] for views, _ in ranks[0]] == [[v.shape for v in views] for views, _ in ranks[1]]


def test_a_draw_needs_enough_resolutions(net: SwitchableModel, photos: str) -> None:
    with pytest.raises(ConfigError, match=r"views is 4, and the number of resolutions 3; all, sandwich or 3 to 3"):
        feed_of(net, photos, views=4)


def test_a_target_beyond_the_outputs_is_refused_before_it_is_mixed(make_net: MakeNet, photos: str) -> None:
    net = make_net(classes=2)
    net.source = replace(net.source, num_classes=2)
    with pytest.raises(DataError, match="a target is 2; the network has 2 outputs"):
        taken(feed_of(net, photos, mixup=0.2, batch_size=24), stop=1)


def test_data_that_ends_early_is_told(net: SwitchableModel, photos: str) -> None:
    with pytest.raises(DataError, match="the data gave 6 of 7 batches of an epoch"):
        taken(feed_of(net, photos), 2, 7)


SIZES = (32, 24, 17)
KINDS = {"mixup": {"mixup": 0.4, "cutmix": 0.0}, "cutmix": {"mixup": 0.0, "cutmix": 1.0}}
TARGET = torch.tensor([0, 3, 1, 4, 2])


def make_views(images: int = 5, sizes: tuple[int, ...] = SIZES) -> list[Tensor]:
    """Each pixel tells its image: the constant i + 1, so that a box shows."""
    return [torch.arange(1.0, images + 1).view(-1, 1, 1, 1).expand(-1, 3, r, r).contiguous() for r in sizes]


def shares(mixed: Tensor) -> np.ndarray:
    """How much of the second image, of value N, the first one, of value 1, shows in each pixel."""
    return ((mixed[0, 0] - 1) / (len(mixed) - 1)).double().numpy()


def timms(view: Tensor, seed: int, monkeypatch: pytest.MonkeyPatch, **strengths: float) -> tuple[Tensor, Tensor]:
    """What timm does with one view if NumPy draws what a Random of this seed draws."""
    rng = Random(seed)
    both = all(strengths.values())
    decisions = iter([lambda: 0.0, rng.random if both else None])  # the first one is whether to mix at all
    monkeypatch.setattr(np.random, "rand", lambda: next(decisions)())  # type: ignore[misc]
    monkeypatch.setattr(np.random, "beta", rng.betavariate)
    monkeypatch.setattr(np.random, "randint", lambda low, high, size: rng.randrange(low, high))
    mixup = Mixup(strengths["mixup"], strengths["cutmix"], label_smoothing=0.0, num_classes=5)
    return mixup(view.clone(), TARGET[: len(view)])


@pytest.mark.parametrize("strengths", [*KINDS.values(), {"mixup": 0.4, "cutmix": 1.0}])
@pytest.mark.parametrize("seed", range(8))
def test_the_largest_view_is_timms(strengths: dict[str, float], seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    views = [torch.randn(4, 3, r, r, generator=torch.Generator().manual_seed(r)) for r in SIZES]
    mixed, target = mix(views, TARGET[:4], 5, **strengths, rng=Random(seed))
    expected = timms(views[0], seed, monkeypatch, **strengths)
    torch.testing.assert_close((mixed[0], target), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_mixup_by_hand_in_every_view(seed: int) -> None:
    views = [torch.randn(5, 3, r, r, generator=torch.Generator().manual_seed(r)).double() for r in SIZES]
    mixed, target = mix(views, TARGET, 5, mixup=0.4, cutmix=0.0, rng=Random(seed))
    lam = Random(seed).betavariate(0.4, 0.4)
    for view, found in zip(views, mixed, strict=True):
        np.testing.assert_allclose(found, lam * view.numpy() + (1 - lam) * view.numpy()[::-1], atol=1e-12)
    hot = np.eye(5)[TARGET]
    np.testing.assert_allclose(target, lam * hot + (1 - lam) * hot[::-1], atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_cuts_one_box_to_the_scale_of_each_view(seed: int) -> None:
    views = make_views()
    mixed, target = mix(views, TARGET, 5, mixup=0.0, cutmix=1.0, rng=Random(seed))
    edges = []
    for size, view in zip(SIZES, mixed, strict=True):
        inside = shares(view)
        rows, columns = inside.max(1), inside.max(0)
        np.testing.assert_array_equal(inside, np.outer(rows, columns), "one box of whole pixels")
        found = [np.flatnonzero(line)[[0, -1]] + (0, 1) for line in (rows, columns)]
        edges.append(np.concatenate(found) / size)
        assert np.abs(edges[-1] - edges[0]).max() <= 0.5 / size + 1e-9
    assert target[0, TARGET[0]].item() == pytest.approx(1 - shares(mixed[0]).mean()), "λ is that of the largest view"
    np.testing.assert_allclose(target.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_view_decides_wherever_it_stands(kind: str) -> None:
    views = make_views()
    first = mix(views, TARGET, 5, **KINDS[kind], rng=Random(3))
    last = mix(views[::-1], TARGET, 5, **KINDS[kind], rng=Random(3))
    assert all(map(torch.equal, first[0], last[0][::-1]))
    assert torch.equal(first[1], last[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_middle_image_keeps_itself(kind: str) -> None:
    views = make_views()
    mixed, target = mix(views, TARGET, 5, **KINDS[kind], rng=Random(3))
    assert all(torch.equal(a[2], b[2]) and not torch.equal(a[0], b[0]) for a, b in zip(views, mixed, strict=True))
    assert torch.equal(target[2], torch.eye(5)[TARGET[2]])


def test_each_mixture_has_half_of_the_batches_when_both_are_on() -> None:
    views = make_views(2, (8,))
    boxes = 0
    for seed in range(400):
        (mixed,), _ = mix(views, TARGET[:2], 5, mixup=1.0, cutmix=1.0, rng=Random(seed))
        boxes += bool(np.isin(shares(mixed), (0, 1)).all())
    assert 160 < boxes < 240


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_memory_format_and_inputs_stay(kind: str, layout: Any) -> None:
    views = [view.to(torch.float64).contiguous(memory_format=layout) for view in make_views()]
    before = [view.clone() for view in views]
    mixed, target = mix(views, TARGET, 5, **KINDS[kind], rng=Random(3))
    assert all(view.is_contiguous(memory_format=layout) and view.dtype == torch.float64 for view in mixed)
    assert all(map(torch.equal, views, before))
    assert target.shape == (5, 5)


def test_only_the_given_generator_draws() -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first, again, other = (mix(make_views(), TARGET, 5, mixup=0.4, cutmix=1.0, rng=Random(s)) for s in (7, 7, 8))
    assert all(map(torch.equal, first[0], again[0]))
    assert not torch.equal(first[0][0], other[0][0])
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    np.testing.assert_array_equal(states[2], np.random.get_state()[1])
