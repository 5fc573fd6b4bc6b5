"""A network under test: a path for each size, the images that it takes, and what it predicts for them."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from rsconvert.data import (
    Grid,
    Samples,
    Size,
    ViewLoader,
    crop_shares,
    evaluation_loader,
    normalize,
    resolution_of,
    whole_loader,
)
from rsconvert.evaluation.device import autocast, float_dtype
from rsconvert.evaluation.fitting import check_labels, check_targets, known_source
from rsconvert.evaluation.overlap import Overlaps, at_mask, confusion
from rsconvert.evaluation.sizes import check_sizes, multiply_adds
from rsconvert.models import Task, count_outputs
from rsconvert.surgery import SwitchableModel, eval_mode

__all__ = ["Answers", "Subject", "check_logits", "collect", "validation_loader"]


class Subject:
    """What evaluation knows of a network: switchable, or a plain model that runs at every size as it is.

    Args:
        outputs: the output of each class, where the network has more of them.
        resize: how whole images become views of segmentation, see ``whole_views``.
        ignored: the value of a mask where nothing is known; None takes that of the network's task.
    Raises:
        ResolutionError: the network does not work at a size.
        ConfigError: ``crop_pct`` has another length than the trained resolutions.
    """

    def __init__(
        self,
        model: nn.Module,
        sizes: Sequence[Size],
        outputs: Sequence[int] | None = None,
        *,
        resize: str = "squash",
        ignored: int | None = None,
    ) -> None:
        self.model, self.resize = model, resize
        self.trained: tuple[int, ...] = ()
        self.alpha: Tensor | None = None
        self.paths = dict.fromkeys(sizes, model)
        if isinstance(model, SwitchableModel):
            self.trained = model.resolutions
            self.paths = {size: model.at(resolution_of(size)) for size in sizes}
            self.alpha = model.alpha if set(self.trained) <= self.paths.keys() else None
        source = known_source(model)
        self.preprocessing, self.task = source.preprocessing, source.task
        self._ignored = self.task.ignore_index if ignored is None else ignored
        known = source.num_classes if self.task.dense else 0
        self.classes = count_outputs(next(iter(self.paths.values())), self.task) or 0 if known is None else known
        self.crop_pct = crop_shares(self.preprocessing, self.trained, sizes)
        self.costs = {size: multiply_adds(path, size) for size, path in self.paths.items()}
        self.device = next(model.parameters()).device
        self.outputs, self._dtype = outputs, float_dtype(model)

    @property
    def sizes(self) -> tuple[Size | None, ...]:
        """The sizes that give predictions, and None if the ensemble does."""
        return (*self.paths, *(() if self.alpha is None else (None,)))

    def interpolated(self, size: Size) -> bool:
        """Return whether the path of a size holds no trained BN set of its own."""
        return bool(self.trained) and resolution_of(size) not in self.trained

    def images(self, view: Tensor) -> Tensor:
        """Return uint8 images (N, C, H, W) as the network takes them: on its device, normalized, of its type."""
        return normalize(view.to(self.device, non_blocking=True), self.preprocessing, dtype=self._dtype)

    def logits(
        self, views: Sequence[Tensor], targets: Tensor, amp: torch.dtype = torch.float32
    ) -> dict[Size | None, Tensor]:
        """Return logits (N, classes) by size, in at least float32; under None those of the ensemble, if it has one.

        The ensemble weighs the logits of the trained resolutions by softmax(alpha) (RS-Nets, Eq. 5).

        Args:
            views: uint8 images (N, C, H, W), one batch per size.
            targets: their classes, which must exist.
            amp: as of `choose_precision`.
        """
        given: dict[Size | None, Tensor] = {}
        for (size, path), view in zip(self.paths.items(), views, strict=True):
            every = self._run(path, view, amp)
            check_targets(targets, every, self.outputs)
            given[size] = every if self.outputs is None else every[:, self.outputs]
        if self.alpha is not None:
            trained = torch.stack([given[r] for r in self.trained])
            given[None] = torch.tensordot(self.alpha.to(trained).softmax(0), trained, 1)
        return given

    def answers(
        self, views: Sequence[Any], targets: Any, amp: torch.dtype = torch.float32, *, keep_logits: bool = False
    ) -> Mapping[Size | None, "Answers | Overlaps"]:
        """Return what the network predicts for a batch of a loader, by size, and under None what the ensemble does."""
        if self.task.dense:
            return self._overlaps(views, targets, amp)
        by_size = self.logits(views, targets, amp)
        here = {size: targets.to(logits.device, non_blocking=True) for size, logits in by_size.items()}
        return {size: Answers.of(z, here[size], keep_logits=keep_logits) for size, z in by_size.items()}

    def joined(self, batches: Sequence[Any]) -> Any:
        """Return what several batches gave as one."""
        return Overlaps.joined(batches, self.classes) if self.task.dense else Answers.joined(batches)

    def labels(self, targets: Any) -> Tensor:
        """Return the targets of a batch, (N,), or of masks the number of positions of each class, (N, classes)."""
        if not self.task.dense:
            return cast(Tensor, targets)
        return torch.stack([self._labelled(mask.long()) for mask in targets])

    def _labelled(self, mask: Tensor) -> Tensor:
        known = mask[mask != self._ignored]
        check_labels(known, self.classes)
        return torch.bincount(known, minlength=self.classes)

    def _overlaps(self, views: Sequence[Any], masks: Sequence[Tensor], amp: torch.dtype) -> dict[Size | None, Overlaps]:
        matrices: dict[Size | None, list[Tensor]] = {size: [] for size in self.sizes}
        broken: Counter[Size | None] = Counter()
        for mask, found in zip(masks, self._dense(views, [(m.shape[0], m.shape[1]) for m in masks], amp), strict=True):
            here = mask.to(self.device, non_blocking=True)
            for size, logits in found.items():
                matrices[size].append(confusion(logits.argmax(0), here, self.classes, self._ignored))
                broken[size] += not bool(logits.isfinite().all())
        return {size: Overlaps.of(own, broken[size]) for size, own in matrices.items()}

    def masks(
        self, views: Sequence[Any], grids: Sequence[Grid], amp: torch.dtype = torch.float32
    ) -> Iterator[dict[Size | None, Tensor]]:
        """Yield for each image its predicted classes (H, W) by size, and under None those of the ensemble.

        Args:
            views: uint8 images, one batch per size.
            grids: height and width of each image's mask.
            amp: as of `choose_precision`.
        """
        for maps in self._dense(views, grids, amp):
            yield {size: logits.argmax(0) for size, logits in maps.items()}

    def _dense(
        self, views: Sequence[Any], grids: Sequence[Grid], amp: torch.dtype
    ) -> Iterator[dict[Size | None, Tensor]]:
        """Yield for each image its logits (C, H, W) as `masks` does its classes."""
        given = {
            size: self._each(path, view, amp) for (size, path), view in zip(self.paths.items(), views, strict=True)
        }
        for i, grid in enumerate(grids):
            maps: dict[Size | None, Tensor] = {s: at_mask(z[i], s, grid, self.resize) for s, z in given.items()}
            if self.alpha is not None:
                trained = torch.stack([maps[r] for r in self.trained])
                maps[None] = torch.tensordot(self.alpha.to(trained).softmax(0), trained, 1)
            yield maps

    def _each(self, path: nn.Module, view: Tensor | list[Tensor], amp: torch.dtype) -> list[Tensor]:
        """Return the logits (C, h, w) of each image, which may be of several sizes."""
        if isinstance(view, Tensor):
            return [*self._run(path, view, amp)]
        return [self._run(path, one[None], amp)[0] for one in view]

    def _run(self, path: nn.Module, view: Tensor, amp: torch.dtype) -> Tensor:
        with autocast(self.device, amp):
            output = path(self.images(view))
        return check_logits(output, self.task)


def check_logits(output: object, task: Task | None = None) -> Tensor:
    """Return the logits of a network's output in at least float32; raise an UnsupportedModelError if it has none.

    Args:
        task: None is classification.
    """
    logits = (task or Task()).logits(output)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def validation_loader(
    net: nn.Module,
    samples: Samples,
    sizes: Sequence[Size] | None = None,
    *,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    resize: str = "squash",
) -> ViewLoader:
    """Return images in batches, a view for each size, cropped as the network's preprocessing says.

    Images for a network of segmentation come whole, see ``whole_views``.

    Of ``world_size`` processes each takes a share, which may be empty.

    Args:
        sizes: resolutions in pixels, or pairs (height, width); None takes the trained resolutions.
        resize: how whole images become views.
    Raises:
        ConfigError, ResolutionError: a setting is unusable.
    """
    trained = net.resolutions if isinstance(net, SwitchableModel) else ()
    asked = trained if sizes is None else sizes
    check_sizes(asked)
    source = known_source(net)
    preprocessing = source.preprocessing
    whole = partial(whole_loader, resize=resize, fill=preprocessing.mean)
    shares = crop_shares(preprocessing, trained, asked)
    cropped = partial(evaluation_loader, crop_pct=shares, channels=preprocessing.channels)
    open_loader: Callable[..., ViewLoader] = whole if source.task.dense else cropped
    return open_loader(
        samples,
        asked,
        batch_size=batch_size,
        workers=workers,
        interpolation=preprocessing.interpolation,
        pin_memory=next(net.parameters()).device.type == "cuda",
        rank=rank,
        world_size=world_size,
    )


@dataclass(frozen=True)
class Answers:
    """What one path predicts for N images, in the order of the data.

    Attributes:
        best: the class that it predicts, (N,), int64: a class of the data.
        confidence: the probability that it gives that class, (N,), float32.
        among_five: whether the target is among the five best classes, (N,), bool.
        logits: (N, classes), at least float32, if they were asked for.
    """

    best: Tensor
    confidence: Tensor
    among_five: Tensor
    logits: Tensor | None = None

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor, *, keep_logits: bool = False) -> "Answers":
        """Return what logits (N, C) predict for images of these targets, (N,)."""
        five = logits.topk(min(5, logits.shape[1]), dim=1).indices
        best = five[:, 0]
        confidence = logits.softmax(1).gather(1, best[:, None])[:, 0].float()
        return cls(best, confidence, (five == targets[:, None]).any(1), logits if keep_logits else None)

    @classmethod
    def joined(cls, parts: Sequence["Answers"]) -> "Answers":
        """Return those of several batches as one, on the CPU; of none, no predictions."""
        empty = torch.zeros(0)
        every = parts or [cls(empty.long(), empty, empty.bool())]
        logits = [part.logits for part in every if part.logits is not None]
        return cls(
            torch.cat([part.best for part in every]).cpu(),
            torch.cat([part.confidence for part in every]).cpu(),
            torch.cat([part.among_five for part in every]).cpu(),
            torch.cat(logits).cpu() if logits else None,
        )

    def taken(self, order: Tensor) -> "Answers":
        """Return those of some images, by their places (M,)."""
        logits = None if self.logits is None else self.logits[order]
        return Answers(self.best[order], self.confidence[order], self.among_five[order], logits)


_Found = dict[str, dict[Size | None, Any]]


@torch.no_grad()
def collect(
    subjects: Mapping[str, Subject],
    loader: ViewLoader,
    *,
    amp: torch.dtype = torch.float32,
    keep_logits: bool = False,
    progress: bool = False,
    check: Callable[[], None] = lambda: None,
) -> tuple[_Found, Tensor]:
    """Return what networks predict for the views of a loader, and the targets; ``check`` is called each batch.

    That is `Answers`, or `Overlaps` of masks; the targets are as of `Subject.labels`.
    """
    parts: dict[str, dict[Size | None, list[Any]]] = {
        name: {size: [] for size in subject.sizes} for name, subject in subjects.items()
    }
    first = next(iter(subjects.values()))
    targets = [torch.zeros((0, first.classes) if first.task.dense else 0, dtype=torch.int64)]
    with eval_mode(path for subject in subjects.values() for path in subject.paths.values()):
        for views, target in tqdm(loader, desc="evaluate", unit="batch", disable=not progress, leave=False):
            for name, subject in subjects.items():
                for size, found in subject.answers(views, target, amp, keep_logits=keep_logits).items():
                    parts[name][size].append(found)
            targets.append(first.labels(target))
            check()
    answers = {name: {size: subjects[name].joined(own) for size, own in by.items()} for name, by in parts.items()}
    return answers, torch.cat(targets)
