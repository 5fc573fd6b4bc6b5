"""The values at the global pooling under training's and evaluation's preprocessing (RS-Nets, Fig. 3 and Fig. 9).

Crops of training enlarge the objects, so that a network sees them smaller in evaluation, and its pooled values shift
(Touvron et al. 2019, "Fixing the train-test resolution discrepancy").
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rsconvert.data import Augmentation, Samples, ViewLoader, open_split, postponed_interrupts, training_loader
from rsconvert.errors import DataError
from rsconvert.evaluation import (
    Amp,
    check_colours,
    choose_device,
    choose_precision,
    crop_shares,
    plain_memory_errors,
    validation_loader,
)
from rsconvert.study.paper.features import pooled_features
from rsconvert.study.paper.style import PAGE, new_figure, paper_style, step_style
from rsconvert.study.paper.tables import Table
from rsconvert.surgery import SwitchableModel

__all__ = [
    "PooledValues",
    "PoolingRow",
    "cdf_distance",
    "object_size",
    "plot_pooling",
    "pooled_values",
]

_POINTS = 201

_Values = NDArray[np.float32]


@dataclass(frozen=True)
class PoolingRow:
    """The pooled values of one path under one preprocessing, over all images and features.

    Attributes:
        views: ``test``, or ``train`` with the smallest and largest share of the image in a crop.
        object_size: an object's mean side in the view, divided by that in the view of evaluation.
        zeros: the share of values that are 0, in percent.
        distance: the largest gap to the CDF under evaluation's views, in percent (Kolmogorov-Smirnov).
        cdf: the share of values up to each of the common ``values``.
    """

    resolution: int
    views: str
    object_size: float
    mean: float
    deviation: float
    zeros: float
    distance: float
    cdf: tuple[float, ...]


@dataclass(frozen=True)
class PooledValues:
    """The distributions over ``images`` images and ``features`` features.

    Attributes:
        values: where the CDFs are taken, from 0.5 to 99.5 % of those under evaluation's views.
    """

    images: int
    features: int
    values: tuple[float, ...]
    rows: tuple[PoolingRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        rows = [{**vars(row), "cdf": list(row.cdf)} for row in self.rows]
        return {"images": self.images, "features": self.features, "values": list(self.values), "rows": rows}

    def table(self) -> Table:
        """Return a row per resolution and kind of views, without the CDFs."""
        titles = ["resolution", "views", "object size", "mean", "deviation", "zeros (%)", "CDF's distance (%)"]
        note = f"Of {self.images} images, {self.features} features each. Distance: the largest gap to the CDF of test."
        return Table(titles, [list(vars(row).values())[:-1] for row in self.rows], note)

    def data(self) -> Table:
        """Return the CDFs, a column for each."""
        titles = ["value", *(f"{row.resolution} {row.views}" for row in self.rows)]
        return Table(titles, list(zip(self.values, *(row.cdf for row in self.rows), strict=True)))


def pooled_values(
    net: SwitchableModel,
    data: str | Path | Samples,
    resolutions: Sequence[int] | None = None,
    *,
    crop_areas: Sequence[tuple[float, float]] = ((0.08, 1.0),),
    images: int = 1000,
    batch_size: int = 64,
    workers: int = 2,
    device: str | torch.device | None = None,
    amp: Amp = None,
    data_root: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> PooledValues:
    """Measure the classifier's input on the same images cut as in evaluation, and as in training.

    It is that of the last layer, the one that gives the logits; of maps the means over the positions count.

    Args:
        data: a folder with ``val/``, a timm data-set string, or opened samples; labels don't matter.
        resolutions: trained or not; None takes the trained ones.
        crop_areas: smallest and largest share of the image in a crop of training.
        images: how many to draw, by ``seed``; all, if there are fewer. The crops are drawn by it too.
        device, amp: as of ``evaluate``.
    Raises:
        DataError: there are no images, one can't be read, or the network does not take three colours.
        ConfigError, ResolutionError: a setting is unusable.
        UnsupportedModelError: the network has no classifier.
        TrainingError: memory ran out.
    """
    check_colours(net)
    where = choose_device(device)
    precision = choose_precision(amp, where)
    samples = open_split(str(data), "val", root=data_root) if isinstance(data, str | Path) else data
    drawn, sides = _drawn(samples, images, seed), net.resolutions if resolutions is None else tuple(resolutions)
    loading = {"batch_size": batch_size, "workers": workers}
    with plain_memory_errors(batch_size, workers), postponed_interrupts() as check:
        net.to(where)
        trains = {area: _training_views(net, drawn, sides, area, seed, loading) for area in crop_areas}
        look = partial(pooled_features, net, sides, amp=precision, progress=progress, check=check)
        test = look(validation_loader(net, drawn, sides, **loading))
        values = _grid(list(test.values()))
        rows = [_row(r, "test", 1.0, test[r], test[r], values) for r in sides]
        for area, views in trains.items():
            train = look(views)
            name, sizes = "train {:g}-{:g}".format(*area), _object_sizes(net, sides, area)
            rows += [_row(r, name, size, train[r], test[r], values) for r, size in zip(sides, sizes, strict=True)]
    rows.sort(key=lambda row: sides.index(row.resolution))
    return PooledValues(len(drawn), test[sides[0]].shape[1], tuple(values.tolist()), tuple(rows))


def object_size(crop_area: tuple[float, float], crop_pct: float) -> float:
    """Return how large objects are in views of training, beside those of evaluation: crop_pct · E[1 / √share].

    A square image is meant, whose crops take a share of it that is uniform in ``crop_area``.

    >>> round(object_size((0.08, 1.0), 0.875), 2)
    1.36
    """
    low, high = crop_area
    mean = 2 * (math.sqrt(high) - math.sqrt(low)) / (high - low) if low < high else 1 / math.sqrt(low)
    return crop_pct * mean


def cdf_distance(first: _Values, second: _Values) -> float:
    """Return the largest gap between the CDFs of two sets of values (Kolmogorov-Smirnov)."""
    first, second = np.sort(first), np.sort(second)
    every = np.concatenate([first, second])
    below = [np.searchsorted(values, every, side="right") / len(values) for values in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


@paper_style
def plot_pooling(result: PooledValues) -> Figure:
    """Draw the CDFs under evaluation's views, a curve per resolution, and by how much those of training differ."""
    kinds = list(dict.fromkeys(row.views for row in result.rows))
    figure = new_figure(PAGE, 2.6)
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes in panels[2:]:
        axes.sharey(panels[1])
    test = {row.resolution: 100 * np.array(row.cdf) for row in result.rows if row.views == kinds[0]}
    for axes, views in zip(panels, kinds, strict=True):
        rows = [row for row in result.rows if row.views == views]
        for i, row in enumerate(rows):
            shares = 100 * np.array(row.cdf) - (0 if views == kinds[0] else test[row.resolution])
            axes.plot(result.values, shares, label=str(row.resolution), **step_style(i, len(rows)))
        axes.set_title(views if views == kinds[0] else f"{views} minus {kinds[0]}")
    for axes, label in zip(panels, ("values below (%)", "gap (percent points)"), strict=False):
        axes.set_ylabel(label)
    figure.supxlabel("value at the global pooling", fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, title="resolution (pixels)", loc="outside upper center", ncols=min(8, len(labels)))
    return figure


def _drawn(samples: Samples, images: int, seed: int) -> Samples:
    if len(samples) == 0 or images < 1:
        raise DataError(f"{len(samples)} images are there, {images} are asked for; at least one is needed. Add images.")
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    return samples.subset(order[:images].tolist())


def _training_views(
    net: SwitchableModel,
    samples: Samples,
    resolutions: Sequence[int],
    area: tuple[float, float],
    seed: int,
    loading: Mapping[str, int],
) -> ViewLoader:
    cut = Augmentation(crop_area=area, interpolation=net.source.preprocessing.interpolation)
    size, workers = loading["batch_size"], loading["workers"]
    return training_loader(
        samples, resolutions, batch_size=size, workers=workers, seed=seed, augmentation=cut, drop_last=False
    )


def _object_sizes(net: SwitchableModel, resolutions: Sequence[int], area: tuple[float, float]) -> list[float]:
    shares = crop_shares(net.source.preprocessing, net.resolutions, resolutions)
    return [object_size(area, share) for share in shares]


def _grid(tests: Sequence[_Values]) -> NDArray[np.float64]:
    """Return where to take CDFs: all but the longest tails, which would leave no room for the rest."""
    ends = np.array([np.quantile(values.astype(np.float64), (0.005, 0.995)) for values in tests])
    return np.linspace(ends[:, 0].min(), ends[:, 1].max(), _POINTS)


def _row(
    resolution: int, views: str, size: float, features: _Values, test: _Values, where: NDArray[np.float64]
) -> PoolingRow:
    values = np.sort(features.ravel())
    return PoolingRow(
        resolution,
        views,
        size,
        float(values.mean(dtype=np.float64)),
        float(values.std(dtype=np.float64)),
        100 * float(np.mean(values == 0)),
        100 * cdf_distance(values, test.ravel()),
        tuple((np.searchsorted(values, where, side="right") / len(values)).tolist()),
    )
