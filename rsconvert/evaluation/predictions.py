"""What networks say of labelled images, every image decoded once for all of them.

    networks, images → predict → Predictions: of each image the answer, how sure it is, whether it is right

All figures of an evaluation, of the analysis and of a cascade follow from these.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rsconvert.checkpoint import write_tensors
from rsconvert.data import Samples, Size, ViewLoader, evaluation_loader, open_split, postponed_interrupts
from rsconvert.errors import DataError, RSConvertError
from rsconvert.evaluation.answers import Answers
from rsconvert.evaluation.device import Amp, choose_device, choose_precision
from rsconvert.evaluation.distributed import Meeting, Processes, shared_failure
from rsconvert.evaluation.fitting import check_classes, mapped_outputs
from rsconvert.evaluation.memory_errors import plain_memory_errors
from rsconvert.evaluation.sharing import check_alike, joined_answers, rounds, whole_order
from rsconvert.evaluation.sizes import check_sizes, size_name
from rsconvert.evaluation.subject import Subject
from rsconvert.surgery import eval_mode

__all__ = ["Predictions", "check_order", "collect", "predict", "save_logits"]


@dataclass(frozen=True)
class Predictions:
    """The answers of networks to the same N images.

    Attributes:
        targets: (N,), int64.
        classes: the names of the classes, where the data has some.
        answers: network → size → its path's answers; under None those of the ensemble of all trained resolutions.
        subjects: network → what is known of it; see `Subject`.
    """

    targets: Tensor
    classes: tuple[str, ...] | None
    answers: dict[str, dict[Size | None, Answers]]
    subjects: dict[str, Subject]

    def right(self, network: str, size: Size | None) -> Tensor:
        """Return whether each answer is right, (N,), bool."""
        return self.answers[network][size].best == self.targets


def predict(
    networks: Mapping[str, nn.Module],
    data: str | Path | Samples,
    sizes: Sequence[Size],
    *,
    batch_size: int = 64,
    workers: int = 2,
    device: str | torch.device | None = None,
    amp: Amp = None,
    data_root: str | None = None,
    class_map: str | Path | None = None,
    keep_logits: bool = False,
    progress: bool = False,
    processes: Processes | None = None,
) -> Predictions:
    """Ask networks for the classes of labelled images, each at every size.

    A network is switchable, or a plain model with its own preprocessing, see ``create_model``. Images are decoded once
    for all networks that want them alike, else once for each kind. Modes are left as they are; of the other arguments
    see ``evaluate``, whose errors these are.

    Args:
        sizes: resolutions in pixels, or pairs (height, width).
        keep_logits: keep all logits too, N · classes numbers for each path; of several processes the first alone.
        processes: those that share the images, and all get the predictions; None takes this one alone.
    """
    where = choose_device(device)
    precision = choose_precision(amp, where)
    processes = processes or Processes(0, 1, where)
    with (
        plain_memory_errors(batch_size, workers),
        postponed_interrupts() as interrupts,
        shared_failure(processes) as meet,
    ):
        sizes = check_sizes(sizes)
        samples = open_split(str(data), "val", root=data_root) if isinstance(data, str | Path) else data
        outputs = mapped_outputs(samples, class_map)
        subjects = _subjects(networks, samples, sizes, outputs, where)
        check_alike(networks, samples, processes, meet)
        share = _Share(samples, batch_size, workers, processes, interrupts, meet)
        answers: dict[str, dict[Size | None, Answers]] = {}
        targets: list[Tensor] = []
        for alike in _groups(subjects):
            found, seen = share.collect(alike, amp=precision, keep_logits=keep_logits, progress=progress)
            answers |= found
            targets.append(seen)
    check_order(targets)
    return Predictions(targets[0], samples.classes, {name: answers[name] for name in networks}, subjects)


@torch.no_grad()
def collect(
    subjects: Mapping[str, Subject],
    loader: ViewLoader,
    *,
    amp: torch.dtype = torch.float32,
    keep_logits: bool = False,
    progress: bool = False,
    check: Callable[[], None] = lambda: None,
) -> tuple[dict[str, dict[Size | None, Answers]], Tensor]:
    """Return the answers of networks to the views of a loader, and the targets (N,).

    Args:
        amp: as of `choose_precision`.
        check: is called after each batch, and may raise.
    """
    parts: dict[str, dict[Size | None, list[Answers]]] = {}
    for name, subject in subjects.items():
        parts[name] = {size: [] for size in subject.sizes}
    targets = [torch.zeros(0, dtype=torch.int64)]
    with eval_mode(path for subject in subjects.values() for path in subject.paths.values()):
        for views, target in tqdm(loader, desc="evaluate", unit="batch", disable=not progress, leave=False):
            for name, subject in subjects.items():
                for size, logits in subject.logits(views, target, amp).items():
                    here = target.to(logits.device, non_blocking=True)
                    parts[name][size].append(Answers.of(logits, here, keep_logits=keep_logits))
            targets.append(target)
            check()
    answers = {name: {size: Answers.joined(batches) for size, batches in by.items()} for name, by in parts.items()}
    return answers, torch.cat(targets)


def save_logits(found: Predictions, path: str | Path) -> None:
    """Write kept logits to a safetensors file: ``NETWORK/SIZE`` (N, classes), ``NETWORK/ensemble``, ``targets`` (N,).

    Raises:
        CheckpointError: the file can't be written.
    """
    tensors = {"targets": found.targets}
    for network, by_size in found.answers.items():
        for size, answers in by_size.items():
            assert answers.logits is not None, "predict(…, keep_logits=True)"
            tensors[f"{network}/{'ensemble' if size is None else size_name(size)}"] = answers.logits
    write_tensors(tensors, path, {"format": "pt"})


def _subjects(
    networks: Mapping[str, nn.Module],
    samples: Samples,
    sizes: Sequence[Size],
    outputs: Sequence[int] | None,
    device: torch.device,
) -> dict[str, Subject]:
    if len(samples) == 0:
        raise DataError("the data holds no images; an accuracy needs at least one. Add images.")
    subjects = {}
    for name, network in networks.items():
        with _named(name, among=len(networks)):
            check_classes(network, samples, outputs)
            subjects[name] = Subject(network.to(device), sizes, outputs)
    return subjects


@dataclass(frozen=True)
class _Share:
    """This process's part of the work: which images it reads, and when it meets the others."""

    samples: Samples
    batch_size: int
    workers: int
    processes: Processes
    interrupts: Callable[[], None]
    meet: Meeting

    def collect(
        self, alike: Mapping[str, Subject], **options: Any
    ) -> tuple[dict[str, dict[Size | None, Answers]], Tensor]:
        """Return what networks that want their images alike say of all of them, and the targets."""
        with closing(self._loader(alike)) as loader:
            found, targets = collect(alike, loader, check=self._check, **options)
            if self.processes.world_size == 1:
                return found, targets
            count = len(self.samples)
            for _ in range(rounds(count, self.batch_size, self.processes) - len(loader)):
                self._check()
        order = whole_order(count, self.batch_size, self.processes)
        whole = {name: joined_answers(by_size, order, self.processes, self.meet) for name, by_size in found.items()}
        return whole, torch.cat(self.meet(targets))[order]

    def _check(self) -> None:
        """After a batch, stop if somebody asked for it, or if another process failed."""
        self.interrupts()
        self.meet()

    def _loader(self, alike: Mapping[str, Subject]) -> ViewLoader:
        subject = next(iter(alike.values()))
        return evaluation_loader(
            self.samples,
            list(subject.paths),
            batch_size=self.batch_size,
            workers=self.workers,
            crop_pct=subject.crop_pct,
            interpolation=subject.preprocessing.interpolation,
            pin_memory=subject.on_gpu,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
        )


@contextmanager
def _named(name: str, among: int) -> Iterator[None]:
    """Say of which of several networks an error tells."""
    try:
        yield
    except RSConvertError as error:
        if among == 1:
            raise
        raise type(error)(f"{name}: {error}") from error


def check_order(targets: Sequence[Tensor]) -> None:
    """Raise a DataError unless the targets that several readings of the data gave, (N,) each, are the same."""
    if any(not torch.equal(seen, targets[0]) for seen in targets):
        raise DataError(
            "the data gives its images in another order each time; one order is needed to compare networks that want "
            "their images in different ways. Take a folder or a map-style data set."
        )


def _groups(subjects: Mapping[str, Subject]) -> Iterable[dict[str, Subject]]:
    """Split networks by how they want their images cut."""
    groups: dict[object, dict[str, Subject]] = {}
    for name, subject in subjects.items():
        groups.setdefault((subject.preprocessing.interpolation, subject.crop_pct), {})[name] = subject
    return groups.values()
