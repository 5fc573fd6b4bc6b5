"""predict_masks: photos in, the class of each of their pixels out, as files to look at and to read."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rsconvert.checkpoint import load, replacing
from rsconvert.data import Photo, Resize, Samples, as_pillow, normalize, photo_samples, whole_views, without_broken
from rsconvert.errors import CheckpointError, ConfigError, UnsupportedModelError
from rsconvert.evaluation import (
    Amp,
    at_mask,
    autocast,
    check_colours,
    check_names_classes,
    choose_device,
    choose_precision,
    float_dtype,
)
from rsconvert.models import output_names
from rsconvert.runtime.predictors import chosen_resolution
from rsconvert.surgery import SwitchableModel, eval_mode
from rsconvert.text import Table

__all__ = ["MaskFile", "MaskFiles", "MaskOptions", "PredictedMask", "class_palette", "predict_masks", "write_masks"]


@dataclass(frozen=True)
class PredictedMask:
    """The classes of a photo's pixels.

    ``image`` is its file, or its place in the list; ``resolution`` that of the path, in pixels; ``pixels`` are uint8
    (3, H, W) or grey (1, H, W), ``classes`` int64 (H, W), ``names`` those of the classes, as far as they are known;
    ``outputs`` is the number of classes that the network knows, None if that is unknown.
    """

    image: str
    resolution: int
    pixels: Tensor
    classes: Tensor
    names: tuple[str, ...] | None = None
    outputs: int | None = None

    @property
    def shares(self) -> dict[str, float]:
        """The share of the pixels, in percent, of each class that the mask holds, the largest first."""
        counts = torch.bincount(self.classes.flatten())
        order = [int(index) for index in counts.argsort(descending=True) if counts[index]]
        label = str if self.names is None else self.names.__getitem__
        return {label(index): 100 * float(counts[index]) / self.classes.numel() for index in order}

    def mask(self) -> Image.Image:
        """Return a palette image whose values are the classes; a grey one of 16 bits for more than 256 classes."""
        if max(int(self.classes.max()) + 1, self.outputs or 0) > 256:  # alike for all photos of a network
            return Image.fromarray(self.classes.numpy().astype(np.uint16))
        found = Image.fromarray(self.classes.numpy().astype(np.uint8), mode="P")
        found.putpalette(class_palette().flatten().tolist())
        return found

    def overlay(self) -> Image.Image:
        """Return the photo, half of it in the colours of the classes."""
        colours = Image.fromarray(class_palette()[self.classes.numpy() % 256])
        return Image.blend(as_pillow(self.pixels).convert("RGB"), colours, 0.5)


class MaskFile(NamedTuple):
    """The files of a photo's mask, and the share of its pixels, in percent, of each class that it holds."""

    image: str
    resolution: int
    mask: str
    overlay: str
    shares: dict[str, float]


class MaskFiles(tuple[MaskFile, ...]):
    """What was written, in the order of the photos; printed as a table."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: ``images``, each with its files and the shares of its classes in percent."""
        return {"images": [file._asdict() for file in self]}

    def __str__(self) -> str:
        rows = [
            (*((f.image, f.resolution, f.mask) if rank == 0 else (None, None, None)), name, f"{share:.1f}")
            for f in self
            for rank, (name, share) in enumerate(f.shares.items())
        ]
        return Table(("image", "resolution", "mask", "class", "pixels (%)"), rows).as_text()


class MaskOptions(TypedDict, total=False):
    """What `predict_masks` takes by name."""

    resolution: int | None
    latency_ms: float | None
    resize: Resize
    device: str | torch.device | None
    amp: Amp
    skip_broken: int


def predict_masks(
    net: SwitchableModel | str | os.PathLike[str],
    images: Photo | Iterable[Photo],
    *,
    resolution: int | None = None,
    latency_ms: float | None = None,
    resize: Resize = "squash",
    device: str | torch.device | None = None,
    amp: Amp = None,
    skip_broken: int = 0,
) -> Iterator[PredictedMask]:
    """Yield the mask of each photo at its own size, one after the other; modes are left as they are.

    Args:
        net: a network of masks, or a place as of ``load``.
        images: as of ``predict``.
        resolution: as of ``predict``.
        latency_ms: as of ``predict``.
        resize: how the whole photo becomes the view, as of ``evaluate``.
        skip_broken: as of ``predict``.
    Raises:
        UnsupportedModelError: the network gives one prediction for each image, or one number for each position.
        DataError, ConfigError, CheckpointError, ResolutionError: as ``predict``.
    """
    samples = photo_samples(images)
    net = net if isinstance(net, SwitchableModel) else load(os.fspath(net))
    if not net.source.task.dense:
        raise UnsupportedModelError(
            "the network gives one prediction for each image; one of segmentation is needed. Use rsconvert.predict."
        )
    check_names_classes(net)
    check_colours(net)
    net = net.to(choose_device(device))
    (samples,) = without_broken([samples], skip_broken)
    return _masks(net, samples, chosen_resolution(net, resolution, latency_ms, amp), resize, amp)


def write_masks(
    net: SwitchableModel | str | os.PathLike[str],
    images: Photo | Iterable[Photo],
    folder: str | Path,
    *,
    force: bool = False,
    **how: Unpack[MaskOptions],
) -> MaskFiles:
    """Write ``NAME.png``, the mask, and ``NAME.overlay.png`` for each photo into a folder, which is made if needed.

    Args:
        net, images, how: as of ``predict_masks``, whose errors these are too.
        force: replace files that exist.
    Raises:
        ConfigError: two photos have one name, or a mask would replace a photo.
        CheckpointError: a file exists or can't be written, or the folder is a file.
    """
    samples = photo_samples(images)
    _check_places([samples.name(index) for index in range(len(samples))], Path(folder), force)
    found = predict_masks(net, images, **how)
    Path(folder).mkdir(parents=True, exist_ok=True)
    return MaskFiles(_written(mask, Path(folder)) for mask in found)


def _written(found: PredictedMask, folder: Path) -> MaskFile:
    places = _places(found.image, folder)
    for place, picture in zip(places, (found.mask(), found.overlay()), strict=True):
        with replacing(place) as part:
            picture.save(part, format="PNG")
    mask, overlay = map(str, places)
    return MaskFile(found.image, found.resolution, mask, overlay, found.shares)


def _places(image: str, folder: Path) -> tuple[Path, Path]:
    return folder / f"{Path(image).stem}.png", folder / f"{Path(image).stem}.overlay.png"


def _check_places(images: Sequence[str], folder: Path, force: bool) -> None:
    """Refuse before the work what else would fail after it."""
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; masks go into a folder. Choose another name.")
    photos, seen = {Path(image).resolve() for image in images}, dict[Path, str]()
    for place, image in ((place, each) for each in images for place in _places(each, folder)):
        other = seen.setdefault(place, image)
        if other != image:
            raise ConfigError(f"{other} and {image} would both become {place.name}. Predict them apart.")
        if place.resolve() in photos:
            raise ConfigError(f"{place} is one of the photos; masks need a place of their own. Choose another folder.")
        if place.exists() and not force:
            raise CheckpointError(f"{place} exists; a new name is needed. Choose another, or overwrite with --force.")


@torch.no_grad()
def _masks(
    net: SwitchableModel, samples: Samples, resolution: int, resize: Resize, amp: Amp
) -> Iterator[PredictedMask]:
    path, how, device = net.at(resolution), net.source.preprocessing, net.alpha.device
    precision, names = choose_precision(amp, device), output_names(net.source)
    with eval_mode([net]):
        for index in range(len(samples)):
            pixels, _ = samples.read(index)
            views = whole_views(pixels, [resolution], resize=resize, interpolation=how.interpolation, fill=how.mean)
            view = normalize(views[0][None].to(device), how, dtype=float_dtype(net))
            with autocast(device, precision):
                logits = net.source.task.logits(path(view)).float()
            dense = at_mask(logits[0], resolution, (pixels.shape[-2], pixels.shape[-1]), resize)
            classes, outputs = dense.argmax(0).cpu(), dense.shape[0]
            yield PredictedMask(samples.name(index), resolution, pixels, classes, names, outputs)


def class_palette() -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    """Return 256 colours (256, 3) that differ, black first: the bits of the number, dealt to the three channels."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((numbers >> channel) & 1) << (7 - bit)).astype(np.uint8)
        numbers >>= 3
    return colours
