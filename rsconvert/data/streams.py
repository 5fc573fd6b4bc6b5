"""Data sets that can only be read in order, by timm's readers: WebDataset's shards (``wds/``), streams of the Hub.

timm's readers share the shards among processes and workers, shuffle those of training, and fill up the last batch of
each worker with images from the start. They log an unreadable sample and take the next one.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from random import Random
from typing import Any

from timm.data.dataset_factory import create_dataset
from timm.data.readers.shared_count import SharedCount
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from rsconvert.data.decoding import from_pillow
from rsconvert.data.samples import Samples, one_line
from rsconvert.errors import ConfigError, DataError

__all__ = ["Stream", "StreamViews"]


class Stream(Samples):
    """Labelled images without an index: `read` and `open` refuse them, the loaders take them."""

    def __init__(self, data: str, split: str, root: str | None) -> None:
        self._data, self._split, self._root = data, split, root
        reader = self.reader()
        names = {target: str(name) for name, target in reader.class_to_idx.items()}
        self.label = f"{data} {split}"
        super().__init__(self, self.label, tuple(names[target] for target in sorted(names)) or None)
        self._count = int(reader.num_samples)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        raise IndexError("it can only be read in order")

    def subset(self, indices: Sequence[int]) -> Samples:
        raise DataError(
            f"{self.label} can only be read in order; images that are read by index are needed here. Give a folder of "
            "images, or hfds/ for hfids/."
        )

    def reader(self, **options: Any) -> Any:
        """Return timm's reader, which gives (Pillow image, target)."""
        try:
            # Without a mode timm leaves the picture as it is; its own conversion would clip 16 bits.
            return create_dataset(self._data, root=self._root, split=self._split, input_img_mode="", **options).reader
        except Exception as error:  # whatever webdataset, datasets or the network raise
            raise DataError(
                f"{self._data} can't be opened, split {self._split} ({one_line(error)}). Check the name and data_root."
            ) from error


class StreamViews(IterableDataset[Any]):
    """The views and targets of a stream, or a `DataError`; ``epoch`` and ``skip`` reach workers that run.

    The randomness of an image is a function of (seed, epoch, rank, worker, position).
    """

    def __init__(
        self,
        stream: Stream,
        cut: Callable[..., list[Tensor]],
        *,
        batch_size: int,
        workers: int,
        seed: int = 0,
        training: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._stream, self._cut, self._batch_size, self._training = stream, cut, batch_size, training
        self._key = f"{seed}", f"{rank}"
        self._workers, self._world_size = max(1, workers), world_size
        self._reader = stream.reader(is_training=training, batch_size=batch_size, seed=seed % 2**31)
        self._reader.dist_rank, self._reader.dist_num_replicas = rank, world_size
        self._reader.set_loader_cfg(num_workers=workers)
        self._check_shards(self._workers * world_size)
        self._epoch, self._skip = SharedCount(), SharedCount()

    def __len__(self) -> int:
        """Return the images of training; in an evaluation, as many as fill the batches that there can be."""
        if self._training:
            return len(self._reader)
        share = -(-len(self._stream) // self._world_size)
        return share + (self._workers - 1) * (self._batch_size - 1)

    @property
    def epoch(self) -> int:
        return int(self._epoch.value)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.value = epoch
        self._reader.set_epoch(epoch)

    @property
    def skip(self) -> int:
        """Images left out at the beginning of an epoch, which are read nevertheless."""
        return int(self._skip.value)

    @skip.setter
    def skip(self, skip: int) -> None:
        self._skip.value = skip

    def check_count(self, seen: int) -> None:
        """Refuse an evaluation on other than all images, which timm's reader would let pass.

        Raises:
            DataError: one process alone saw more or fewer images than the set has.
        """
        if not self._training and self._world_size == 1 and seen != len(self._stream):
            raise DataError(
                f"{self._stream.label} gave {seen} of {len(self._stream)} images; an evaluation needs all, once each. "
                "Mend the shards or their number; what timm logged tells more."
            )

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker = info.id if info is not None else 0
        # Batches come from the workers by turns.
        skipped = (self.skip // self._batch_size + self._workers - 1 - worker) // self._workers * self._batch_size
        seed, rank = self._key
        try:
            for position, (picture, target) in islice(enumerate(self._opened()), skipped, None):
                drawn = {"rng": Random(f"{seed}-{self.epoch}-{rank}-{worker}-{position}")} if self._training else {}
                name = f"{self._stream.label}, image {position} of worker {worker}"
                yield self._cut(from_pillow(picture), **drawn), self._stream.checked(target, name)
        except Exception as error:  # whatever webdataset, datasets or the network raise
            # As many as fill a batch, which else would be dropped with the error.
            yield from [self._told(error)] * self._batch_size

    def _opened(self) -> Any:
        if self._reader.ds is None:
            self._reader._lazy_init()
        if not self._training:
            # The shards are shared out; told of other processes, timm would cut or fill each share to one size.
            self._reader.dist_num_replicas = 1
        return self._reader

    def _told(self, error: Exception) -> DataError:
        if isinstance(error, DataError):
            return DataError(str(error))
        return DataError(f"{self._stream.label} can't be read on ({one_line(error)}). Mend the data.")

    def _check_shards(self, readers: int) -> None:
        shards = getattr(getattr(self._reader, "split_info", None), "filenames", None)
        if self._training and shards is not None and len(shards) < readers:
            raise ConfigError(
                f"workers is {self._workers}, in all {readers} readers for the {len(shards)} shards of the training "
                "set; each needs one. Lower workers, or cut the data into more shards."
            )
