"""Feed: batches of training views as the network takes them, each copied to the device while another one learns."""

import itertools
from collections.abc import Iterator, Sequence
from random import Random

import torch
from torch import Tensor

from rsconvert.data import Augmentation, Samples, normalize, training_loader
from rsconvert.errors import ConfigError, DataError
from rsconvert.evaluation import Processes, check_labels
from rsconvert.models import count_outputs
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.step.mixing import mix

__all__ = ["Feed"]

Batch = tuple[list[Tensor], Tensor]


class Feed:
    """Gives (S normalized views of shape (N, 3, r, r), targets) on the device, the same for the same epoch and place.

    Args:
        outputs: the network's output for each class of the data; None if these are the same.
    Raises:
        ConfigError, DataError: a setting does not fit the network or the data.
    """

    def __init__(
        self,
        net: SwitchableModel,
        train: Samples,
        config: FinetuneConfig,
        processes: Processes,
        dtype: torch.dtype,
        outputs: Sequence[int] | None = None,
    ) -> None:
        self.config, self.processes, self.dtype = config, processes, dtype
        self.preprocessing = net.source.preprocessing
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.outputs = None if outputs is None else torch.tensor(outputs)
        self.classes = net.source.num_classes or count_outputs(net.at(net.native)) or 0
        self.loader = training_loader(
            train,
            _sizes(net, config),
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
                interpolation=net.source.preprocessing.interpolation,
            ),
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
        target = target if self.outputs is None else self.outputs[target]
        mixing = bool(config.mixup or config.cutmix)
        if mixing:
            check_labels(target, self.classes)
        target = target.to(device, non_blocking=True)
        if mixing:
            return mix(inputs, target, self.classes, mixup=config.mixup, cutmix=config.cutmix, rng=rng)
        return inputs, target


def _sizes(net: SwitchableModel, config: FinetuneConfig) -> tuple[int, ...]:
    sizes = config.view_sizes or net.resolutions
    if len(sizes) != len(net.resolutions):
        raise ConfigError(
            f"view_sizes has {len(sizes)} numbers; {len(net.resolutions)} are needed, one per resolution. Correct it."
        )
    return sizes
