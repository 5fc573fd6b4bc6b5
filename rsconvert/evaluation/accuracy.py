"""Accuracy at every resolution, and of the ensemble, with every image decoded once for all of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rsconvert.data import (
    Samples,
    ViewLoader,
    evaluation_loader,
    normalize,
    open_split,
    postponed_interrupts,
    read_class_map,
)
from rsconvert.errors import ConfigError, DataError, UnsupportedModelError
from rsconvert.evaluation.cost import multiply_adds
from rsconvert.evaluation.device import choose_device
from rsconvert.evaluation.fitting import check_classes, check_targets
from rsconvert.evaluation.memory import plain_memory_errors
from rsconvert.evaluation.modes import eval_mode
from rsconvert.evaluation.results import Accuracy, Evaluation
from rsconvert.surgery import SwitchableModel, check_resolutions

__all__ = ["count_hits", "evaluate", "measure", "validation_loader"]

_PRECISIONS = (None, torch.bfloat16, torch.float16)


def evaluate(
    net: SwitchableModel,
    data: str | Path | Samples,
    resolutions: Sequence[int] | None = None,
    *,
    batch_size: int = 64,
    workers: int = 2,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    data_root: str | None = None,
    class_map: str | Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measure a network on labelled images at trained and interpolated resolutions.

    Images are resized and cropped as ``net.source.preprocessing`` says; the ensemble weighs the logits of the trained
    resolutions by softmax(alpha) (RS-Nets, Eq. 5). The network's modes are left as they are.

    Args:
        data: a folder with ``val/``, a timm data-set string, or opened samples.
        resolutions: in pixels, reported in this order; None takes the trained ones.
        device: where to compute, and where the network stays; None keeps it where it is.
        amp: the precision of autocast, bfloat16 or float16; None computes in the network's own.
        data_root: where a timm data-set string finds its files.
        class_map: a file that gives each class of the data its output, see ``read_class_map``, for a network that
            knows more classes; hits are counted among the outputs in it.
        progress: show a bar on stderr.
    Raises:
        DataError: there are no images; one can't be read; the classes of the data are not those of the network, or do
            not fit the map.
        ResolutionError: a resolution is malformed, or does not work in the network.
        UnsupportedModelError: the network's output is not logits (N, C).
        ConfigError: a setting is unusable, or there is no such device here.
        TrainingError: memory ran out.
    """
    if amp not in _PRECISIONS:
        raise ConfigError(f"amp is {amp!r}; torch.bfloat16, torch.float16 or None is accepted. Change it.")
    samples = open_split(str(data), "val", root=data_root) if isinstance(data, str | Path) else data
    if len(samples) == 0:
        raise DataError("the data holds no images; an accuracy needs at least one. Add images.")
    outputs = None if class_map is None else read_class_map(class_map, samples.classes)
    check_classes(net, samples, outputs)
    asked = net.resolutions if resolutions is None else tuple(dict.fromkeys(resolutions))
    with plain_memory_errors(batch_size, workers), postponed_interrupts() as check:
        if device is not None:
            net.to(choose_device(str(device)))
        with closing(validation_loader(net, samples, asked, batch_size=batch_size, workers=workers)) as loader:
            return measure(net, loader, asked, amp=amp, outputs=outputs, progress=progress, check=check)


def validation_loader(
    net: SwitchableModel,
    samples: Samples,
    resolutions: Sequence[int] | None = None,
    *,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
) -> ViewLoader:
    """Return the images as a network sees them, cropped as its preprocessing says; None takes its resolutions.

    Of ``world_size`` processes each takes a share, which may be empty.

    Raises:
        ConfigError, ResolutionError: a setting is unusable.
    """
    asked = net.resolutions if resolutions is None else resolutions
    for r in asked:
        check_resolutions([r])
    return evaluation_loader(
        samples,
        asked,
        batch_size=batch_size,
        workers=workers,
        crop_pct=_crop_pct(net, asked),
        interpolation=net.source.preprocessing.interpolation,
        pin_memory=net.alpha.device.type == "cuda",
        rank=rank,
        world_size=world_size,
    )


def measure(
    net: SwitchableModel,
    loader: ViewLoader,
    resolutions: Sequence[int] | None = None,
    *,
    amp: torch.dtype | None = None,
    outputs: Sequence[int] | None = None,
    progress: bool = False,
    check: Callable[[], None] = lambda: None,
    reduce: Callable[[Tensor], Tensor] = lambda number: number,
) -> Evaluation:
    """Measure a network on the batches of `validation_loader`, which may be used again.

    Args:
        resolutions: those of the loader; None takes the trained ones.
        outputs: the output of each class, where the network has more of them: hits are counted among these alone.
        check: is called after each batch, and may raise.
        reduce: is called on each number of hits, int64 (2,), and on the number of images, int64 (); if each process
            measures a share of the images, it adds them up.
    Raises:
        DataError, ResolutionError, UnsupportedModelError: as `evaluate`.
    """
    asked = net.resolutions if resolutions is None else resolutions
    paths = {r: net.at(r) for r in asked}
    costs = {r: multiply_adds(path, r) for r, path in paths.items()}
    hits, images = _hits(net, paths, loader, amp, outputs, progress, check)
    count = int(reduce(images))
    rates = {key: _rate(reduce(pair), count) for key, pair in hits.items()}
    rows = {r: replace(rates[r], multiply_adds=costs[r], interpolated=r not in net.resolutions) for r in asked}
    return Evaluation(count, rows, rates.get(None))


def count_hits(logits: Tensor, targets: Tensor) -> Tensor:
    """Return how many of N targets are the first, and among the first five, of logits (N, C): shape (2,)."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == targets[:, None]
    return torch.stack([hits[:, 0].sum(), hits.sum()])


@torch.no_grad()
def _hits(
    net: SwitchableModel,
    paths: Mapping[int, nn.Module],
    loader: ViewLoader,
    amp: torch.dtype | None,
    outputs: Sequence[int] | None,
    progress: bool,
    check: Callable[[], None],
) -> tuple[dict[int | None, Tensor], Tensor]:
    """Count the hits of each path, under None those of the ensemble; and the images."""
    device = net.alpha.device
    keys: list[int | None] = [*paths, *([None] if set(net.resolutions) <= paths.keys() else [])]
    hits = {key: torch.zeros(2, dtype=torch.int64, device=device) for key in keys}
    images = torch.zeros((), dtype=torch.int64, device=device)
    with eval_mode(paths.values()):
        for views, target in tqdm(loader, desc="evaluate", unit="batch", disable=not progress, leave=False):
            logits: dict[int | None, Tensor] = {}
            for (r, path), view in zip(paths.items(), views, strict=True):
                every = _logits(net, path, view, amp)
                check_targets(target, every, outputs)
                logits[r] = every if outputs is None else every[:, outputs]
            if None in hits:
                logits[None] = _ensemble(net, logits)
            here = target.to(device, non_blocking=True)
            for key, value in logits.items():
                hits[key] += count_hits(value, here)
            images += len(target)
            check()
    return hits, images


def _logits(net: SwitchableModel, path: nn.Module, view: Tensor, amp: torch.dtype | None) -> Tensor:
    """Return the logits (N, C) of uint8 images, in at least float32."""
    dtype = next(p.dtype for p in net.parameters() if p.is_floating_point())
    device = net.alpha.device
    image = normalize(view.to(device, non_blocking=True), net.source.preprocessing, dtype=dtype)
    with torch.autocast(device.type, amp, enabled=amp is not None):
        output = path(image)
    if not isinstance(output, Tensor) or output.ndim != 2:
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise UnsupportedModelError(
            f"the network's output is a {found}; logits (N, classes) are needed to count hits. Wrap the model."
        )
    logits: Tensor = output.to(torch.promote_types(output.dtype, torch.float32))
    return logits


def _rate(hits: Tensor, count: int) -> Accuracy:
    first, among_five = (100 * number / count for number in hits.tolist())
    return Accuracy(first, among_five)


def _ensemble(net: SwitchableModel, logits: Mapping[int | None, Tensor]) -> Tensor:
    trained = torch.stack([logits[r] for r in net.resolutions])
    ensemble: Tensor = torch.tensordot(net.alpha.to(trained).softmax(0), trained, 1)
    return ensemble


def _crop_pct(net: SwitchableModel, resolutions: Sequence[int]) -> float | list[float]:
    """Return one share, or one per resolution: an untrained one takes that of its nearest trained one."""
    crop_pct = net.source.preprocessing.crop_pct
    if not isinstance(crop_pct, tuple):
        return crop_pct
    if len(crop_pct) != len(net.resolutions):
        raise ConfigError(
            f"crop_pct has {len(crop_pct)} numbers; {len(net.resolutions)} are needed, one per trained resolution, "
            "or one for all. Correct it."
        )
    nearest = [min(net.resolutions, key=lambda own: abs(own - r)) for r in resolutions]
    return [crop_pct[net.resolutions.index(r)] for r in nearest]
