"""Feed: the batches that the loader gives, normalized, mapped and mixed; the same wherever an epoch is entered."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from rsconvert.data import Augmentation, normalize, open_train_val, training_loader
from rsconvert.errors import ConfigError, DataError
from rsconvert.evaluation import Processes
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.step.feeding import Feed
from rsconvert.training.step.mixing import mix

MakeNet = Callable[..., SwitchableModel]


def feed_of(net: SwitchableModel, photos: str, rank: int = 0, outputs: Any = None, **settings: Any) -> Feed:
    config = FinetuneConfig(**{"batch_size": 4, "workers": 0, "seed": 3, **settings})
    train, _ = open_train_val(photos)
    return Feed(net, train, config, Processes(rank, 1 + rank, torch.device("cpu")), torch.float32, outputs)


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


def test_targets_become_outputs(net: SwitchableModel, photos: str) -> None:
    plain, mapped = taken(feed_of(net, photos)), taken(feed_of(net, photos, outputs=(7, 0, 4)))
    for (_, target), (_, output) in zip(plain, mapped, strict=True):
        assert output.tolist() == [(7, 0, 4)[t] for t in target.tolist()]


def test_mixing_is_drawn_by_seed_epoch_batch_and_rank(make_net: MakeNet, photos: str) -> None:
    plain, mixed = taken(feed_of(make_net(), photos)), taken(feed_of(make_net(), photos, mixup=0.4))
    for number, ((views, target), found) in enumerate(zip(plain, mixed, strict=True)):
        assert same(found, mix(views, target, 3, mixup=0.4, cutmix=0.0, rng=Random(f"3-1-{number}-0")))


def test_sizes_must_be_one_per_resolution(net: SwitchableModel, photos: str) -> None:
    with pytest.raises(ConfigError, match="view_sizes has 2 numbers; 3 are needed"):
        feed_of(net, photos, view_sizes=(32, 32))


def test_a_target_beyond_the_outputs_is_refused_before_it_is_mixed(make_net: MakeNet, photos: str) -> None:
    net = make_net(classes=2)
    net.source = replace(net.source, num_classes=2)
    with pytest.raises(DataError, match="a target is 2; the network has 2 outputs"):
        taken(feed_of(net, photos, mixup=0.2, batch_size=24), stop=1)


def test_data_that_ends_early_is_told(net: SwitchableModel, photos: str) -> None:
    with pytest.raises(DataError, match="the data gave 6 of 7 batches of an epoch"):
        taken(feed_of(net, photos), 2, 7)
