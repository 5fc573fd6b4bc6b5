"""The values at the global pooling: by NumPy from features that the models themselves give."""

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from rsconvert.data import Augmentation, Samples, evaluation_views, normalize, training_loader
from rsconvert.errors import ConfigError, DataError, UnsupportedModelError
from rsconvert.evaluation import validation_loader
from rsconvert.study.pooling import cdf_distance, object_size, plot_pooling, pooled_features, pooled_values
from rsconvert.surgery import SwitchableModel, make_switchable

AREA = (0.3, 0.5)


def test_distributions_are_those_of_numpy(network: Callable[..., SwitchableModel], samples: Samples) -> None:
    net = network(32, 16)
    result = pooled_values(net, samples, (32, 24), crop_areas=[AREA], batch_size=7, workers=0, seed=3)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3)).tolist()
    loading = {"batch_size": 60, "workers": 0}
    (tests,) = list(validation_loader(net, samples.subset(order), (32, 24), **loading))
    (trains,) = list(
        training_loader(
            samples.subset(order),
            (32, 24),
            seed=3,
            augmentation=Augmentation(crop_area=AREA),
            drop_last=False,
            **loading,
        )
    )
    rows = {(row.resolution, row.views): row for row in result.rows}
    assert list(rows) == [(32, "test"), (32, "train 0.3-0.5"), (24, "test"), (24, "train 0.3-0.5")]
    for place, r in enumerate((32, 24)):
        plain = net.at(r).eval()
        values = {}
        for name, (views, _) in (("test", tests), ("train 0.3-0.5", trains)):
            with torch.no_grad():
                image = normalize(views[place], net.source.preprocessing)
                values[name] = plain.forward_features(image).mean((2, 3)).double().numpy()
            row = rows[r, name]
            assert (row.mean, row.deviation) == pytest.approx((values[name].mean(), values[name].std()), rel=1e-4)
            assert row.zeros == pytest.approx(100 * (values[name] == 0).mean())
            share = [(values[name] <= value).mean() for value in result.values]
            np.testing.assert_allclose(row.cdf, share, atol=0.01)
        gap = cdf_distance(values["test"].ravel(), values["train 0.3-0.5"].ravel())
        assert rows[r, "train 0.3-0.5"].distance == pytest.approx(100 * gap, abs=1)
        assert gap > 0.01, "the views must differ to tell them apart"
    assert (result.images, result.features) == (60, 6)


@pytest.mark.parametrize("ties", [False, True])
def test_the_distance_of_two_cdfs_by_brute_force(ties: bool) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=40), rng.normal(0.5, 2, size=55)
    if ties:
        first, second = first.round(), second.round()
    gaps = [abs((first <= x).mean() - (second <= x).mean()) for x in (*first, *second)]
    assert cdf_distance(first, second) == pytest.approx(max(gaps))
    assert cdf_distance(first, first) == 0


@pytest.mark.parametrize("area", [(0.08, 1.0), (0.3, 1.0), (0.25, 0.25)])
def test_the_size_of_objects_by_simulation(area: tuple[float, float]) -> None:
    """Of a square photo, training enlarges by 1 / √share, evaluation by 1 / crop_pct."""
    rng = Random(0)
    sides = [1 / np.sqrt(rng.uniform(*area)) for _ in range(20_000)]
    assert object_size(area, 0.875) == pytest.approx(0.875 * np.mean(sides), rel=0.01)


def test_the_size_of_objects_in_views_of_evaluation() -> None:
    """A bar over half of a photo's width takes half / crop_pct of the view's."""
    photo = torch.zeros((3, 64, 64), dtype=torch.uint8)
    photo[:, :, 16:48] = 255
    (view,) = evaluation_views(photo, [28], crop_pct=0.875, interpolation="bilinear")
    bar = view[0].double().mean() / 255 * 28
    assert float(bar) / 28 == pytest.approx(0.5 / 0.875, rel=0.02)


def test_a_classifier_that_pools_itself_gives_means(samples: Samples) -> None:
    with torch.random.fork_rng(devices=[]):
        layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        net = make_switchable(nn.Sequential(*layers), (16, 12))
    result = pooled_values(net, samples, images=4, workers=0)
    assert (result.images, result.features) == (4, 8)


def test_settings_without_sense_are_refused(network: Callable[..., SwitchableModel], samples: Samples) -> None:
    with pytest.raises(DataError, match="0 are asked for; at least one is needed"):
        pooled_values(network(16), samples, images=0, workers=0)
    with pytest.raises(ConfigError, match="crop_area"):
        pooled_values(network(16), samples, crop_areas=[(0.5, 0.2)], workers=0)


def test_the_panels_are_cdfs_and_their_gaps(network: Callable[..., SwitchableModel], samples: Samples) -> None:
    result = pooled_values(network(32, 16), samples, crop_areas=[(0.08, 1), AREA], workers=0)
    panels = plot_pooling(result).axes
    assert [axes.get_title() for axes in panels] == ["test", "train 0.08-1 minus test", "train 0.3-0.5 minus test"]
    cdfs = {(row.resolution, row.views): 100 * np.array(row.cdf) for row in result.rows}
    for line, r in enumerate((32, 16)):
        np.testing.assert_allclose(panels[0].lines[line].get_ydata(), cdfs[r, "test"])
        gap = cdfs[r, "train 0.3-0.5"] - cdfs[r, "test"]
        np.testing.assert_allclose(panels[2].lines[line].get_ydata(), gap)
    assert len(result.data().rows) == len(result.values) == 201
    assert result.table().rows[0][:3] == [32, "test", 1.0]


@pytest.mark.parametrize(
    ("model", "features"),
    [
        (
            lambda: timm.create_model("resnet10t", num_classes=5),
            lambda m, x: m.forward_head(m.forward_features(x), pre_logits=True),
        ),
        (
            lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
            lambda m, x: m.forward_head(m.forward_features(x), pre_logits=True),
        ),
        (
            lambda: torchvision.models.mobilenet_v2(num_classes=5),
            lambda m, x: m.features(x).mean((2, 3)),
        ),
    ],
)
def test_networks_of_both_libraries(
    model: Callable[[], nn.Module], features: Callable[[nn.Module, Tensor], Tensor], samples: Samples
) -> None:
    net = make_switchable(model(), (64, 48)).eval()
    few = samples.subset(range(3))
    found = pooled_features(net, (64, 56), validation_loader(net, few, (64, 56), batch_size=2, workers=0))
    views = next(iter(validation_loader(net, few, (64, 56), batch_size=3, workers=0)))[0]
    for place, r in enumerate((64, 56)):
        with torch.no_grad():
            expected = features(net.at(r), normalize(views[place], net.source.preprocessing))
        np.testing.assert_allclose(found[r], expected.numpy(), rtol=1e-3, atol=1e-4)
    assert not any(m._forward_pre_hooks for m in net.at(64).modules()), "the hooks are gone"


def test_a_network_without_a_classifier_is_refused(samples: Samples) -> None:
    net = make_switchable(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), (16, 12))
    with pytest.raises(UnsupportedModelError, match="Sequential has no classifier"):
        pooled_features(net, (16,), validation_loader(net, samples, (16,), batch_size=2, workers=0))
