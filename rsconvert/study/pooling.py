"""The values at the global pooling under training's and evaluation's preprocessing (RS-Nets, Fig. 3 and Fig. 9).

Crops of training enlarge the objects, so that they are smaller in evaluation, and the pooled values shift
(Touvron et al. 2019, "Fixing the train-test resolution discrepancy").
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from rsconvert.data import (
    Augmentation,
    Samples,
    Split,
    ViewLoader,
    crop_shares,
    normalize,
    postponed_interrupts,
    training_loader,
    without_broken,
)
from rsconvert.errors import DataError, UnsupportedModelError
from rsconvert.evaluation import (
    Amp,
    autocast,
    check_classifies,
    check_colours,
    choose_device,
    choose_precision,
    float_dtype,
    open_labelled,
    plain_memory_errors,
    validation_loader,
)
from rsconvert.models import Task, classifier_keys
from rsconvert.study.figures import PAGE, legend_above, new_figure, paper_style, step_style
from rsconvert.surgery import SwitchableModel, eval_mode
from rsconvert.text import Table

__all__ = [
    "PooledValues",
    "PoolingRow",
    "cdf_distance",
    "object_size",
    "plot_pooling",
    "pooled_features",
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
        return {**vars(self), "rows": [dict(vars(row)) for row in self.rows]}

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
    split: Split | float = "val",
    skip_broken: int = 0,
    seed: int = 0,
    progress: bool = False,
) -> PooledValues:
    """Measure the classifier's input on the same images cut as in evaluation, and as in training.

    That is the input of the layer that gives the logits; maps are averaged over their positions.

    Args:
        data: a folder with ``val/``, a timm data-set string, or opened samples; labels don't matter.
        resolutions: trained or not; None takes the trained ones.
        crop_areas: smallest and largest share of the image in a crop of training.
        images: how many to draw by ``seed``, by which the crops are drawn too; all if there are fewer.
        device, amp, split, skip_broken: as of ``evaluate``.
    Raises:
        UnsupportedModelError: the network has no classifier.
        DataError, ConfigError, ResolutionError, TrainingError: as ``evaluate``.
    """
    _check_network(net)
    where = choose_device(device)
    precision = choose_precision(amp, where)
    samples = open_labelled(net, str(data), split, root=data_root) if isinstance(data, str | Path) else data
    (drawn,) = without_broken([_drawn(samples, images, seed)], skip_broken, workers=workers)
    how = net.source.preprocessing
    sides = net.resolutions if resolutions is None else tuple(resolutions)
    with plain_memory_errors(batch_size, workers), postponed_interrupts() as check:
        net.to(where)
        cuts = {area: Augmentation(crop_area=area, interpolation=how.interpolation) for area in crop_areas}
        load = partial(training_loader, drawn, sides, batch_size=batch_size, seed=seed, workers=workers)
        trains = {area: load(augmentation=cut, channels=how.channels, drop_last=False) for area, cut in cuts.items()}
        look = partial(pooled_features, net, sides, amp=precision, progress=progress, check=check)
        test = look(validation_loader(net, drawn, sides, batch_size=batch_size, workers=workers))
        found = {area: look(views) for area, views in trains.items()}
    values, shares = _grid(list(test.values())), crop_shares(how, net.resolutions, sides)
    rows = _rows(test, found, dict(zip(sides, shares, strict=True)), values)
    return PooledValues(len(drawn), test[sides[0]].shape[1], tuple(values.tolist()), tuple(rows))


@torch.no_grad()
def pooled_features(
    net: SwitchableModel,
    resolutions: Sequence[int],
    loader: ViewLoader,
    *,
    amp: torch.dtype = torch.float32,
    progress: bool = False,
    check: Callable[[], None] = lambda: None,
) -> dict[int, NDArray[np.float32]]:
    """Return the classifier's input, (N, features), for the views of a loader; the loader is closed.

    ``check`` is called after each batch, and may raise.
    """
    paths = {r: net.at(r) for r in resolutions}
    dtype = float_dtype(net)
    batches: dict[int, list[Tensor]] = {r: [] for r in resolutions}
    with closing(loader), eval_mode(paths.values()):
        for views, _ in tqdm(loader, desc="pooling", unit="batch", disable=not progress, leave=False):
            for (r, path), view in zip(paths.items(), views, strict=True):
                image = normalize(view.to(net.alpha.device), net.source.preprocessing, dtype=dtype)
                # One path after the other: they share the classifier.
                with autocast(image.device, amp), _classifier_input(path) as inputs:
                    path(image)
                values = inputs[0] if inputs[0].ndim == 2 else inputs[0].flatten(2).mean(2)
                batches[r].append(values.float().cpu())
            check()
    return {r: torch.cat(found).numpy() for r, found in batches.items()}


def object_size(crop_area: tuple[float, float], crop_pct: float) -> float:
    """Return how large objects are in views of training relative to those of evaluation: crop_pct · E[1 / √share].

    This holds for a square image whose crops take a share of it that is uniform in ``crop_area``.

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
    for axes, label in zip(panels, ("values below (%)", "gap (percentage points)"), strict=False):
        axes.set_ylabel(label)
    figure.supxlabel("value at the global pooling", fontsize=8)
    legend_above(figure, panels[:1], 8, "resolution (pixels)")
    return figure


def _check_network(net: SwitchableModel) -> None:
    check_classifies(net, "the input of the classifier")
    check_colours(net)


def _drawn(samples: Samples, images: int, seed: int) -> Samples:
    if len(samples) == 0 or images < 1:
        raise DataError(f"there are {len(samples)} images, {images} are asked for; at least one is needed.")
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    return samples.subset(order[:images].tolist())


@contextmanager
def _classifier_input(path: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list that receives the inputs of the classifier's layers in the order in which they run."""
    names = {key.rpartition(".")[0] for key in classifier_keys(path, Task())}
    if not names:
        raise UnsupportedModelError(
            f"{type(path).__name__} has no classifier, whose input would be the pooled values; a classification "
            "network with logits (N, classes) is needed."
        )
    seen: list[Tensor] = []
    with ExitStack() as hooks:
        for name in names:
            layer = path.get_submodule(name)
            hooks.enter_context(layer.register_forward_pre_hook(lambda _, args: seen.append(args[0])))
        yield seen


def _grid(tests: Sequence[_Values]) -> NDArray[np.float64]:
    """Return where to take CDFs: all but the longest tails, which would leave no room for the rest."""
    ends = np.array([np.quantile(values.astype(np.float64), (0.005, 0.995)) for values in tests])
    return np.linspace(ends[:, 0].min(), ends[:, 1].max(), _POINTS)


def _rows(
    test: Mapping[int, _Values],
    train: Mapping[tuple[float, float], Mapping[int, _Values]],
    shares: Mapping[int, float],
    where: NDArray[np.float64],
) -> list[PoolingRow]:
    """Return for each resolution a row of evaluation's views, and one of training's for each range of crops."""
    rows = []
    for r, share in shares.items():
        rows.append(_row(r, "test", 1.0, test[r], test[r], where))
        for area, features in train.items():
            name = "train {:g}-{:g}".format(*area)
            rows.append(_row(r, name, object_size(area, share), features[r], test[r], where))
    return rows


def _row(
    resolution: int, views: str, size: float, features: _Values, test: _Values, where: NDArray[np.float64]
) -> PoolingRow:
    values = np.sort(features.ravel())
    mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    zeros, distance = 100 * float(np.mean(values == 0)), 100 * cdf_distance(values, test.ravel())
    cdf = tuple((np.searchsorted(values, where, side="right") / len(values)).tolist())
    return PoolingRow(resolution, views, size, mean, deviation, zeros, distance, cdf)
