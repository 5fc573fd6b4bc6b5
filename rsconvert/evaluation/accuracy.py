"""Accuracy at every resolution, and of the ensemble, with every image decoded once for all of them."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rsconvert.data import Samples, evaluation_loader, normalize, open_split
from rsconvert.errors import DataError
from rsconvert.evaluation.cost import multiply_adds
from rsconvert.surgery import SwitchableModel

__all__ = ["Accuracy", "Evaluation", "check_classes", "count_hits", "evaluate"]


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


def evaluate(
    net: SwitchableModel,
    data: str | Samples,
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
    resolutions by softmax(alpha) (RS-Nets, Eq. 4).

    Args:
        data: a folder with ``val/``, a timm data-set string, or opened samples.
        resolutions: in pixels; None takes the trained ones.
        device: where to compute; None keeps the network where it is.
        amp: the precision of autocast; None computes in the network's own.
        data_root: where a timm data-set string finds its files.
    Raises:
        DataError: an image can't be read; the classes of the data are not those of the network.
        ResolutionError: a resolution is malformed.
    """
    samples = open_split(data, "val", root=data_root) if isinstance(data, str) else data
    check_classes(net, samples)
    asked = net.resolutions if resolutions is None else tuple(dict.fromkeys(resolutions))
    if device is not None:
        net.to(device)
    paths = {r: net.at(r) for r in asked}
    hits = _measure(net, paths, samples, batch_size, workers, amp, progress)
    rates = {key: (100 * float(h[0]) / len(samples), 100 * float(h[1]) / len(samples)) for key, h in hits.items()}
    rows = {
        r: Accuracy(*rates[r], multiply_adds=multiply_adds(paths[r], r), interpolated=r not in net.resolutions) for r in asked
    }
    return Evaluation(len(samples), rows, Accuracy(*rates[None]) if None in rates else None)


def count_hits(logits: Tensor, targets: Tensor) -> Tensor:
    """Return how many of N targets are the first, and among the first five, of logits (N, C): shape (2,)."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == targets[:, None]
    return torch.stack([hits[:, 0].sum(), hits.sum()])


def check_classes(net: SwitchableModel, samples: Samples) -> None:
    """Compare the classifier with the classes of the data.

    Raises:
        DataError: their number differs, or the network was trained on classes of other names.
    """
    outputs, known = net.source.num_classes, net.source.class_names
    if samples.classes is None or outputs is None:
        return
    if len(samples.classes) != outputs:
        raise DataError(
            f"the data has {len(samples.classes)} classes, the classifier {outputs} outputs; one output per class is needed. "
            f"Convert with rsconvert wrap … --num-classes {len(samples.classes)}, or give the network's own data."
        )
    if known is not None and known != samples.classes:
        new = next(name for name, own in zip(samples.classes, known, strict=True) if name != own)
        raise DataError(f"the data has a class {new!r} that the network was not trained on; {', '.join(known[:5])} … are. Check the data.")


@torch.no_grad()
def _measure(
    net: SwitchableModel,
    paths: dict[int, nn.Module],
    samples: Samples,
    batch_size: int,
    workers: int,
    amp: torch.dtype | None,
    progress: bool,
) -> dict[int | None, Tensor]:
    """Count the hits of each path, and under None those of the ensemble."""
    preprocessing, device = net.source.preprocessing, net.alpha.device
    loader = evaluation_loader(
        samples,
        list(paths),
        batch_size=batch_size,
        workers=workers,
        crop_pct=_crop_pct(net, list(paths)),
        interpolation=preprocessing.interpolation,
        pin_memory=device.type == "cuda",
    )
    scores = net.alpha.softmax(0)
    whole = set(net.resolutions) <= paths.keys()
    hits: dict[int | None, Tensor] = {key: torch.zeros(2, dtype=torch.long, device=device) for key in (*paths, *([None] if whole else []))}
    modes = {path: path.training for path in paths.values()}
    for path in paths.values():
        path.eval()
    try:
        for views, target in tqdm(loader, desc="evaluate", unit="batch", disable=not progress, leave=False):
            target = target.to(device, non_blocking=True)
            logits = {}
            for (resolution, path), view in zip(paths.items(), views, strict=True):
                with torch.autocast(device.type, amp) if amp else nullcontext():
                    output = path(normalize(view.to(device, non_blocking=True), preprocessing))
                logits[resolution] = output.float()
                hits[resolution] += count_hits(logits[resolution], target)
            if whole:
                ensemble = sum(score * logits[r] for score, r in zip(scores, net.resolutions, strict=True))
                hits[None] += count_hits(torch.as_tensor(ensemble), target)
    finally:
        for path, mode in modes.items():
            path.train(mode)
    return hits


def _crop_pct(net: SwitchableModel, resolutions: Sequence[int]) -> float | list[float]:
    """Return one share, or one per resolution: an untrained one takes that of its nearest trained one."""
    crop_pct = net.source.preprocessing.crop_pct
    if not isinstance(crop_pct, tuple):
        return crop_pct
    nearest = [min(net.resolutions, key=lambda own: abs(own - r)) for r in resolutions]
    return [crop_pct[net.resolutions.index(r)] for r in nearest]
