"""Batches of training views as the network takes them: on the device, normalized, mixed alike in all views."""

import itertools
from collections.abc import Iterator, Sequence
from random import Random

import torch
from timm.data.mixup import mixup_target
from torch import Tensor

from rsconvert.data import Augmentation, Samples, normalize, training_loader
from rsconvert.errors import ConfigError, DataError
from rsconvert.evaluation import Processes, check_labels, float_dtype
from rsconvert.models import count_outputs
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.step.defaults import fill_defaults
from rsconvert.training.step.grids import loss_grids

__all__ = ["Feed", "mix"]

Batch = tuple[list[Tensor], Tensor]
_Box = tuple[int, int, int, int]


class Feed:
    """Gives (S normalized views of shape (N, C, r, r), targets) on the device, the same for the same epoch and place.

    Views that are not drawn have the shape (N, C, 0, 0); all processes draw alike.

    Args:
        classes: how many the targets have; None takes the network's outputs.
    Raises:
        ConfigError, DataError: a setting does not fit the network or the data.
    """

    def __init__(
        self,
        net: SwitchableModel,
        train: Samples,
        config: FinetuneConfig,
        processes: Processes,
        classes: int | None = None,
    ) -> None:
        config = fill_defaults(net, config)
        assert config.crop_area is not None
        sizes = config.view_sizes or net.resolutions
        if len(sizes) != len(net.resolutions):
            raise ConfigError(
                f"view_sizes has {len(sizes)} numbers; {len(net.resolutions)} are needed, one per resolution."
            )
        self.config, self.processes, self.dtype = config, processes, float_dtype(net)
        self.preprocessing = net.source.preprocessing
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.classes = classes or net.source.num_classes or count_outputs(net.at(net.native), net.source.task) or 0
        self.loader = training_loader(
            train,
            sizes,
            batch_size=config.batch_size,
            seed=config.seed,
            workers=config.workers,
            augmentation=Augmentation(
                crop_area=(config.crop_area[0], config.crop_area[1]),
                crop_aspect=(config.crop_aspect[0], config.crop_aspect[1]),
                crop=config.crop,
                flip=config.flip,
                color_jitter=config.color_jitter,
                rand_augment=config.rand_augment,
                interpolation=self.preprocessing.interpolation,
            ),
            drawn=config.drawn_views(len(net.resolutions)),
            grids=loss_grids(net, config),
            channels=self.preprocessing.channels,
            pin_memory=processes.device.type == "cuda",
            rank=processes.rank,
            world_size=processes.world_size,
        )

    def __len__(self) -> int:
        return len(self.loader)

    def batches(self, epoch: int, start: int, stop: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from number ``start`` on, counted from 0, to below ``stop``."""
        self.loader.set_epoch(epoch, skip=start * self.config.batch_size)
        ready: Batch | None = None
        number = start - 1
        for number, batch in enumerate(itertools.islice(self.loader, stop - start), start=start):
            # The copy and the normalization are queued before the caller waits for the loss of the batch before.
            following = self._prepared(batch, Random(f"{self.config.seed}-{epoch}-{number}-{self.processes.rank}"))
            if ready is not None:
                yield ready
            ready = following
        if ready is not None:
            yield ready
        if number + 1 < stop:  # other processes would wait for this one's gradients for ever
            raise DataError(
                f"the data gave {number + 1} of {stop} batches of an epoch; all are needed. Check the data."
            )

    def close(self) -> None:
        """End the worker processes."""
        self.loader.close()

    def _prepared(self, batch: Batch, rng: Random) -> Batch:
        views, target = batch
        device, config = self.processes.device, self.config
        moved = [view.to(device, non_blocking=True) for view in views]
        inputs = [normalize(v, self.preprocessing, dtype=self.dtype, memory_format=self.layout) for v in moved]
        if not (config.mixup or config.cutmix):
            return inputs, target.to(device, non_blocking=True)
        check_labels(target, self.classes)
        target = target.to(device, non_blocking=True)
        return mix(inputs, target, self.classes, mixup=config.mixup, cutmix=config.cutmix, rng=rng)


def mix(views: Sequence[Tensor], target: Tensor, classes: int, *, mixup: float, cutmix: float, rng: Random) -> Batch:
    """Mix image i with image N - 1 - i, as timm's ``Mixup`` does by batch, by the same draw in every view.

    λ ~ Beta(a, a), with a the strength of the mixture drawn; with both strengths above 0 each has half of the batches.
    ``mixup`` is λ·x_i + (1 - λ)·x_j. ``cutmix`` gives x_i a box of x_j: it is drawn on the largest view, where it has
    about 1 - λ of the area, λ becomes the share that is left there, and in other views it is the box scaled and
    rounded to whole pixels, so that one λ stands for all. The middle image of an odd batch keeps itself.

    Args:
        views: S floating tensors (N, C, H, W), left unchanged; their memory formats are kept.
        target: class indices, (N,), below ``classes``.
        mixup: a of mixup, 0 for none; ``cutmix`` likewise, one of them above 0.
        rng: decides all.
    Returns:
        The mixed views, and probabilities (N, classes) in float32.
    """
    assert mixup or cutmix
    cut = rng.random() < 0.5 if mixup and cutmix else bool(cutmix)
    strength = cutmix if cut else mixup
    lam = rng.betavariate(strength, strength)
    if cut:
        height, width = max((view.shape[-2:] for view in views), key=lambda shape: shape[0] * shape[1])
        box, lam = _random_box(height, width, lam, rng)
        mixed = [_cut(view, _scaled(box, height, width, view)) for view in views]
    else:
        mixed = [torch.lerp(view.flip(0), view, lam) for view in views]
    return mixed, mixup_target(target, classes, lam, smoothing=0.0)


def _random_box(height: int, width: int, lam: float, rng: Random) -> tuple[_Box, float]:
    """Return (top, bottom, left, right) around a uniform centre, clipped to the image, and the share outside."""
    side = (1 - lam) ** 0.5
    top, bottom = _random_interval(height, int(height * side), rng)
    left, right = _random_interval(width, int(width * side), rng)
    return (top, bottom, left, right), 1 - (bottom - top) * (right - left) / (height * width)


def _random_interval(length: int, cut: int, rng: Random) -> tuple[int, int]:
    centre = rng.randrange(length)
    return max(0, centre - cut // 2), min(length, centre + (cut + 1) // 2)


def _scaled(box: _Box, height: int, width: int, view: Tensor) -> _Box:
    top, bottom, left, right = box
    h, w = view.shape[-2:]
    return round(top * h / height), round(bottom * h / height), round(left * w / width), round(right * w / width)


def _cut(view: Tensor, box: _Box) -> Tensor:
    top, bottom, left, right = box
    mixed = view.clone()
    mixed[..., top:bottom, left:right] = view[..., top:bottom, left:right].flip(0)
    return mixed
