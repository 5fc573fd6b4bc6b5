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
from rsconvert.data.samples import Samples
from rsconvert.errors import ConfigError, DataError, one_line

__all__ = ["Stream", "StreamViews", "class_names", "open_by_timm"]


def open_by_timm(data: str, split: str, root: str | None, **options: Any) -> Any:
    """Return timm's or torchvision's data set; a DataError says why it can't be opened."""
    try:
        return create_dataset(data, root=root, split=split, **options)
    except Exception as error:  # whatever torchvision, webdataset, datasets or the network raise
        raise DataError(
            f"{data} can't be opened, split {split} ({one_line(error)}). Check the name and data_root."
        ) from error


def class_names(reader: Any) -> tuple[str, ...] | None:
    """Return the names of the targets 0, 1, … of timm's reader; None without any."""
    names = {target: str(name) for name, target in reader.class_to_idx.items()}
    return tuple(names[target] for target in sorted(names)) or None


class Stream(Samples):
    """Labelled images without an index: `read` and `open` refuse them, the loaders take them."""

    def __init__(self, data: str, split: str, root: str | None) -> None:
        self._data, self._split, self._root = data, split, root
        reader = self.reader()
        super().__init__(self, f"{data} {split}", class_names(reader))
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

    def as_classes(self, classes: tuple[str, ...] | None) -> Samples:
        return self  # its reader alone knows the targets

    def reader(self, **options: Any) -> Any:
        """Return timm's reader of (Pillow image, target); without a mode, whose conversion would clip 16 bits."""
        return open_by_timm(self._data, self._split, self._root, input_img_mode="", **options).reader


class StreamViews(IterableDataset[Any]):
    """The views and targets of a stream, or a `DataError`.

    The randomness of an image is a function of (seed, epoch, rank, worker, position).
    """

    def __init__(
        self,
        stream: Stream,
        cut: Callable[..., list[Tensor]],
        batch_size: int,
        workers: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        seed: int = 0,
        training: bool = False,
    ) -> None:
        self._stream, self._cut, self._batch_size, self._training = stream, cut, batch_size, training
        self._seed, self._rank, self._workers, self._world_size = seed, rank, max(1, workers), world_size
        self._epoch, self._skip = SharedCount(), SharedCount()
        self._reader = stream.reader(is_training=training, batch_size=batch_size, seed=seed % 2**31)
        self._reader.dist_rank, self._reader.dist_num_replicas = rank, world_size
        self._reader.set_loader_cfg(num_workers=workers)
        shards = getattr(getattr(self._reader, "split_info", None), "filenames", None)
        if training and shards is not None and len(shards) < (readers := self._workers * world_size):
            raise ConfigError(
                f"workers is {self._workers}, in all {readers} readers for the {len(shards)} shards of the training "
                "set; each needs one. Lower workers, or cut the data into more shards."
            )

    def __len__(self) -> int:
        """Return the images of training; in an evaluation, as many as fill the batches that there can be."""
        if self._training:
            return len(self._reader)
        share = -(-len(self._stream) // self._world_size)
        return share + (self._workers - 1) * (self._batch_size - 1)

    def set_epoch(self, epoch: int, skip: int) -> None:
        """Choose the next epoch, also in workers that run; its first ``skip`` images are read and left out."""
        self._epoch.value, self._skip.value = epoch, skip
        self._reader.set_epoch(epoch)

    def check_count(self, seen: int) -> None:
        """Refuse an evaluation by one process on more or fewer images than there are, which timm lets pass."""
        if not self._training and self._world_size == 1 and seen != len(self._stream):
            raise DataError(
                f"{self._stream.label} gave {seen} of {len(self._stream)} images; an evaluation needs all, once each. "
                "Fix the shards or their number; the log of timm says more."
            )

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker = info.id if info is not None else 0
        # Batches come from the workers by turns.
        left_out = (self._skip.value // self._batch_size + self._workers - 1 - worker) // self._workers
        key = f"{self._seed}-{self._epoch.value}-{self._rank}-{worker}"
        try:
            for position, (picture, target) in islice(enumerate(self._opened()), left_out * self._batch_size, None):
                batch = position // self._batch_size * self._workers + worker
                place = {"rng": Random(f"{key}-{position}"), "epoch": self._epoch.value, "batch": batch}
                name = f"{self._stream.label}, image {position} of worker {worker}"
                views = self._cut(from_pillow(picture), **(place if self._training else {}))
                yield views, self._stream.checked(target, name)
        except Exception as error:  # whatever webdataset, datasets or the network raise
            known = isinstance(error, DataError)
            problem = str(error) if known else f"{self._stream.label} can't be read further ({one_line(error)})."
            # As many as fill a batch, which else would be dropped with the error.
            yield from [DataError(problem)] * self._batch_size

    def _opened(self) -> Any:
        if self._reader.ds is None:
            self._reader._lazy_init()  # which shares out the shards
        if not self._training:  # knowing of other processes, timm would cut or fill each share to one size
            self._reader.dist_num_replicas = 1
        return self._reader
