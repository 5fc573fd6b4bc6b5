"""Accuracy at every resolution, and of the ensemble, with every image decoded once for all of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rsconvert.data import Samples, ViewLoader, evaluation_loader, normalize, open_split, postponed_interrupts
from rsconvert.errors import ConfigError, DataError, UnsupportedModelError
from rsconvert.evaluation.cost import multiply_adds
from rsconvert.evaluation.device import choose_device
from rsconvert.evaluation.memory import plain_memory_errors
from rsconvert.surgery import SwitchableModel, check_resolutions
from rsconvert.zoo import input_channels

__all__ = [
    "Accuracy",
    "Evaluation",
    "check_classes",
    "count_hits",
    "evaluate",
    "measure",
    "validation_loader",
]

_PRECISIONS = (None, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Accuracy:
    """Accuracies in percent; the multiply-adds of one image; whether the path is interpolated."""

    top1: float
    top5: float
    multiply_adds: int | None = None
    interpolated: bool = False


@dataclass(frozen=True)
class Evaluation:
    """The accuracy at each resolution over ``count`` images, and of the ensemble of all trained resolutions.

    ``ensemble`` is None when not every trained resolution was asked for.
    """

    count: int
    resolutions: dict[int, Accuracy]
    ensemble: Accuracy | None

    @property
    def mean_top1(self) -> float:
        """Mean top-1 over the resolutions, in percent."""
        return sum(a.top1 for a in self.resolutions.values()) / len(self.resolutions)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the resolutions as strings."""
        ensemble = None if self.ensemble is None else {"top1": self.ensemble.top1, "top5": self.ensemble.top5}
        rows = {str(r): dict(vars(a)) for r, a in self.resolutions.items()}
        return {"count": self.count, "resolutions": rows, "ensemble": ensemble}

    def __str__(self) -> str:
        lines = [f"{'resolution':>12}{'top-1 (%)':>11}{'top-5 (%)':>11}{'multiply-adds (M)':>19}"]
        for r, row in self.resolutions.items():
            cost = "" if row.multiply_adds is None else f"{row.multiply_adds / 1e6:.1f}"
            note = "  interpolated" if row.interpolated else ""
            lines.append(f"{r:>12}{row.top1:>11.2f}{row.top5:>11.2f}{cost:>19}{note}")
        if self.ensemble is not None:
            lines.append(f"{'ensemble':>12}{self.ensemble.top1:>11.2f}{self.ensemble.top5:>11.2f}")
        return "\n".join([*lines, f"{self.count} images"])


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
        progress: show a bar on stderr.
    Raises:
        DataError: there are no images; one can't be read; the classes of the data are not those of the network.
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
    check_classes(net, samples)
    asked = net.resolutions if resolutions is None else tuple(dict.fromkeys(resolutions))
    with plain_memory_errors(batch_size, workers), postponed_interrupts() as check:
        if device is not None:
            net.to(choose_device(str(device)))
        with closing(validation_loader(net, samples, asked, batch_size=batch_size, workers=workers)) as loader:
            return measure(net, loader, asked, amp=amp, progress=progress, check=check)


def validation_loader(
    net: SwitchableModel,
    samples: Samples,
    resolutions: Sequence[int] | None = None,
    *,
    batch_size: int,
    workers: int,
) -> ViewLoader:
    """Return the images as a network sees them, cropped as its preprocessing says; None takes its resolutions.

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
    )


def measure(
    net: SwitchableModel,
    loader: ViewLoader,
    resolutions: Sequence[int] | None = None,
    *,
    amp: torch.dtype | None = None,
    progress: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Measure a network on the batches of `validation_loader`, which may be used again.

    Args:
        resolutions: those of the loader; None takes the trained ones.
        check: is called after each batch, and may raise.
    Raises:
        DataError, ResolutionError, UnsupportedModelError: as `evaluate`.
    """
    asked = net.resolutions if resolutions is None else resolutions
    paths = {r: net.at(r) for r in asked}
    costs = {r: multiply_adds(path, r) for r, path in paths.items()}
    hits, count = _hits(net, paths, loader, amp, progress, check)
    rates = {key: _rate(pair, count) for key, pair in hits.items()}
    rows = {r: replace(rates[r], multiply_adds=costs[r], interpolated=r not in net.resolutions) for r in asked}
    return Evaluation(count, rows, rates.get(None))


def count_hits(logits: Tensor, targets: Tensor) -> Tensor:
    """Return how many of N targets are the first, and among the first five, of logits (N, C): shape (2,)."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == targets[:, None]
    return torch.stack([hits[:, 0].sum(), hits.sum()])


def check_classes(net: SwitchableModel, samples: Samples) -> None:
    """Compare what the network takes and gives with what the data holds: colours and classes.

    Raises:
        DataError: the network does not take three colours; the number of classes differs, or the network was trained
            on classes of other names, or in another order.
    """
    if input_channels(net) != 3:
        raise DataError(
            f"the network takes {input_channels(net)} channels; images have 3. Convert a network of three channels."
        )
    outputs, known, names = net.source.num_classes, net.source.class_names, samples.classes
    if names is None:
        return
    if outputs is not None and len(names) != outputs:
        raise DataError(
            f"the data has {len(names)} classes, the classifier {outputs} outputs; one output per class is needed. "
            f"Convert with rsconvert wrap … --num-classes {len(names)}, or give the network's own data."
        )
    if known is not None and known != names:
        own, new = next(((a, b) for a, b in zip(known, names, strict=False) if a != b), (len(known), len(names)))
        raise DataError(
            f"the data has the class {new!r} where the network was trained on {own!r}; the same classes in the same "
            "order are needed. Check the data."
        )


@torch.no_grad()
def _hits(
    net: SwitchableModel,
    paths: Mapping[int, nn.Module],
    loader: ViewLoader,
    amp: torch.dtype | None,
    progress: bool,
    check: Callable[[], None],
) -> tuple[dict[int | None, Tensor], int]:
    """Count the hits of each path, under None those of the ensemble; and the images."""
    whole = set(net.resolutions) <= paths.keys()
    hits: dict[int | None, Tensor] = {}
    count = 0
    with _eval_mode(paths.values()):
        for views, target in tqdm(loader, desc="evaluate", unit="batch", disable=not progress, leave=False):
            logits: dict[int | None, Tensor] = {
                r: _logits(net, path, view, amp) for (r, path), view in zip(paths.items(), views, strict=True)
            }
            for output in logits.values():
                _check_targets(target, output)
            if whole:
                logits[None] = _ensemble(net, logits)
            here = target.to(net.alpha.device, non_blocking=True)
            hits = {key: count_hits(value, here) + hits.get(key, 0) for key, value in logits.items()}
            count += len(target)
            check()
    return hits, count


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


def _check_targets(target: Tensor, logits: Tensor) -> None:
    if int(target.max()) >= logits.shape[1]:
        raise DataError(
            f"a target is {int(target.max())}; the network has {logits.shape[1]} outputs, one per class is needed. "
            "Check the data."
        )


@contextmanager
def _eval_mode(paths: Iterable[nn.Module]) -> Iterator[None]:
    """Set eval mode, and each module's own mode again at the end."""
    modes = {module: module.training for path in paths for module in path.modules()}
    for path in paths:
        path.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


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
