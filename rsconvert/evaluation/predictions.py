"""What networks predict for labelled images, every image decoded once for all of them.

    networks, images → predict → Predictions: of each image the class, how sure the network is, whether it is right

All figures of an evaluation, of the analysis and of a cascade follow from these. Several processes may share the work.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsconvert.checkpoint import digest, write_tensors
from rsconvert.data import Pairs, Samples, Size, Split, Stream, postponed_interrupts, share_of_batches, without_broken
from rsconvert.errors import ConfigError, DataError, RSConvertError, UnsupportedModelError
from rsconvert.evaluation.device import Amp, choose_device, choose_precision
from rsconvert.evaluation.distributed import Meeting, Processes, shared_failure
from rsconvert.evaluation.fitting import Masks, check_classes, known_source, mapped_outputs, open_labelled
from rsconvert.evaluation.memory import plain_memory_errors
from rsconvert.evaluation.overlap import Overlaps
from rsconvert.evaluation.sizes import check_sizes, size_name
from rsconvert.evaluation.subject import Answers, Subject, collect, validation_loader

__all__ = ["Predictions", "check_order", "predict", "save_logits"]


class _OfMasks(dict[str, Any]):
    """The answers of networks that have none, because they give masks."""

    def __missing__(self, name: str) -> Any:
        raise UnsupportedModelError(
            f"{name} gives masks, which are right in part; a network that gives one class per image is needed for this."
        )


@dataclass(frozen=True)
class Predictions:
    """What networks predict for the same N images.

    Attributes:
        targets: (N,), int64.
        classes: the names of the classes, where the data has some.
        answers: network → size → what its path predicts; under None the ensemble of all trained resolutions.
        overlaps: the same of masks, in place of ``answers``; ``targets`` are the positions of each class, (N, classes).
        subjects: network → what is known of it; see `Subject`.
    """

    targets: Tensor
    classes: tuple[str, ...] | None
    subjects: dict[str, Subject]
    answers: dict[str, dict[Size | None, Answers]] = field(default_factory=dict)
    overlaps: dict[str, dict[Size | None, Overlaps]] = field(default_factory=dict)

    @property
    def class_labels(self) -> tuple[str, ...]:
        """The names of the classes, or their numbers."""
        classes = self.targets.shape[1] if self.overlaps else int(self.targets.max()) + 1
        return self.classes or tuple(map(str, range(classes)))

    def right(self, network: str, size: Size | None) -> Tensor:
        """Return whether each prediction is right, (N,), bool."""
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
    masks: Masks | None = None,
    split: Split | float = "val",
    skip_broken: int = 0,
    keep_logits: bool = False,
    progress: bool = False,
    processes: Processes | None = None,
) -> Predictions:
    """Predict the classes of labelled images by networks, each at every size.

    A network is switchable, or a plain model with its own preprocessing, see ``create_model``. Images are decoded once
    for all networks that crop them alike, else once for each kind. Modes are left as they are; of the other arguments
    see ``evaluate``, whose errors these are.

    Args:
        sizes: resolutions in pixels, or pairs (height, width).
        keep_logits: keep all logits too, N · classes numbers for each path; of several processes the first alone.
        processes: those that share the images, and each get all predictions; None takes this one alone.
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
        samples = _opened(networks, data, split, masks, data_root, keep_logits, mapped=class_map is not None)
        quiet = not processes.leads
        (samples,) = without_broken([samples], skip_broken, workers=workers, quiet=quiet, check=interrupts)
        outputs, resize = mapped_outputs(samples, class_map), (masks or Masks()).resize
        subjects = _subjects(networks, samples, sizes, outputs, where, resize)
        check_alike(networks, samples, processes, meet)
        share = _Share(samples, batch_size, workers, processes, interrupts, meet)
        parts = [share.collect(alike, precision, keep_logits, progress) for alike in _groups(subjects)]
    check_order([targets for _, targets in parts])
    answers: dict[str, Any] = {name: part[name] for name in networks for part, _ in parts if name in part}
    found, overlaps = (_OfMasks(), answers) if isinstance(samples, Pairs) else (answers, {})
    return Predictions(parts[0][1], samples.classes, subjects, found, overlaps)


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


def _opened(
    networks: Mapping[str, nn.Module],
    data: str | Path | Samples,
    split: Split | float,
    masks: Masks | None,
    root: str | None,
    logits: bool,
    mapped: bool,
) -> Samples:
    """Return the samples that all networks need, with their own classes if opened or ``mapped``.

    A ConfigError says that the tasks of the networks differ, or keep no ``logits``.
    """
    tasks = {name: known_source(network).task.name for name, network in networks.items()}
    if logits and "segmentation" in tasks.values():
        raise ConfigError("logits are kept of one class per image; those of masks are too many. Leave logits out.")
    if len(set(tasks.values())) > 1:
        found = ", ".join(f"{name} {task}" for name, task in tasks.items())
        raise ConfigError(f"the networks have different tasks: {found}; one task is needed to compare them.")
    if isinstance(data, Samples):
        if split != "val":
            raise ConfigError(f"split is {split}, which has no effect on opened samples. Leave it out.")
        return data
    samples = open_labelled(next(iter(networks.values())), str(data), split, masks, root=root)
    return samples if mapped else samples.as_classes(_known_classes(networks))


def _known_classes(networks: Mapping[str, nn.Module]) -> tuple[str, ...] | None:
    """Return the names of the classes that the first network with names was trained on."""
    return next((names for net in networks.values() if (names := known_source(net).class_names) is not None), None)


def _subjects(
    networks: Mapping[str, nn.Module],
    samples: Samples,
    sizes: Sequence[Size],
    outputs: Sequence[int] | None,
    device: torch.device,
    resize: str,
) -> dict[str, Subject]:
    if len(samples) == 0:
        raise DataError("the data holds no images; an accuracy needs at least one.")
    ignored = samples.reading.ignore_index if isinstance(samples, Pairs) else None
    subjects = {}
    for name, network in networks.items():
        try:
            check_classes(network, samples, outputs)
            subjects[name] = Subject(network.to(device), sizes, outputs, resize=resize, ignored=ignored)
        except RSConvertError as error:
            if len(networks) == 1:
                raise
            raise type(error)(f"{name}: {error}") from error
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
        self, alike: Mapping[str, Subject], amp: torch.dtype, keep_logits: bool, progress: bool
    ) -> tuple[dict[str, dict[Size | None, Any]], Tensor]:
        """Return what networks that crop images alike predict for all of them, and the targets."""
        count, subject = len(self.samples), next(iter(alike.values()))
        with closing(
            validation_loader(
                subject.model,
                self.samples,
                list(subject.paths),
                batch_size=self.batch_size,
                workers=self.workers,
                rank=self.processes.rank,
                world_size=self.processes.world_size,
                resize=subject.resize,
            )
        ) as loader:
            found, targets = collect(
                alike, loader, amp=amp, keep_logits=keep_logits, progress=progress, check=self._check
            )
            if self.processes.world_size == 1:
                return found, targets
            for _ in range(rounds(count, self.batch_size, self.processes) - len(loader)):
                self._check()
        order = whole_order(count, self.batch_size, self.processes)
        gathered = partial(joined_answers, order=order, processes=self.processes, meet=self.meet)
        whole = {name: gathered(own, join=alike[name].joined) for name, own in found.items()}
        return whole, torch.cat(self.meet(targets))[order]

    def _check(self) -> None:
        """After a batch, stop if somebody asked for it, or if another process failed."""
        self.interrupts()
        self.meet()


def check_alike(networks: Mapping[str, nn.Module], samples: Samples, processes: Processes, meet: Meeting) -> None:
    """Raise a DataError unless all processes can read the same images by index, a ConfigError if networks differ."""
    if processes.world_size == 1:
        return
    if isinstance(samples, Stream):
        raise DataError(
            f"{samples.label} can only be read in order; {processes.world_size} processes share images by their index. "
            "Evaluate in one process, or give a folder or hfds/ in place of hfids/."
        )
    if len(counts := set(meet((len(samples), samples.classes)))) > 1:
        found = ", ".join(sorted(str(count) for count, _ in counts))
        raise DataError(f"the processes see different images ({found} of them); all need the same. Share the folder.")
    values = {name: digest(network.state_dict()) for name, network in networks.items()}
    held = meet(values)
    if different := [name for name in values if len({each.get(name) for each in held}) > 1]:
        raise ConfigError(
            f"{different[0]} has other values in one process than in another; one network is needed. Load the same "
            "file in all, or broadcast its parameters and buffers."
        )


def rounds(count: int, batch_size: int, processes: Processes) -> int:
    """Return the number of batches of the process that has most of them."""
    return len(range(0, count, batch_size * processes.world_size))


def whole_order(count: int, batch_size: int, processes: Processes) -> Tensor:
    """Return, for each image (N,), its place among the shares of all processes put one behind the other."""
    size = processes.world_size
    shares = [share_of_batches(count, batch_size, rank=rank, world_size=size) for rank in range(size)]
    return torch.tensor([index for share in shares for index in share]).argsort()


def joined_answers(
    own: Mapping[Size | None, Any],
    order: Tensor,
    processes: Processes,
    meet: Meeting,
    join: Callable[[Sequence[Any]], Any] = Answers.joined,
) -> dict[Size | None, Any]:
    """Return what a network predicts for all images, by size, from each process's own; the first alone gets logits."""
    found: dict[Size | None, Any] = {}
    for size, answers in own.items():
        parts: Sequence[Any] = meet(answers)  # size by size, for logits are large
        if not processes.leads:
            parts = [replace(part, logits=None) if isinstance(part, Answers) else part for part in parts]
        found[size] = join(parts).taken(order)
    return found


def check_order(targets: Sequence[Tensor]) -> None:
    """Raise a DataError unless the targets that several readings of the data gave, (N,) each, are the same."""
    if any(not torch.equal(seen, targets[0]) for seen in targets):
        raise DataError(
            "the data gives its images in another order each time; one order is needed to compare networks that crop "
            "images in different ways. Take a folder or a map-style data set."
        )


def _groups(subjects: Mapping[str, Subject]) -> Iterable[dict[str, Subject]]:
    """Split networks by how they crop images, and with which colour they fill them up."""
    groups: dict[object, dict[str, Subject]] = {}
    for name, subject in subjects.items():
        how = subject.preprocessing
        fill = how.mean if subject.resize == "pad" else None
        groups.setdefault((how.interpolation, how.channels, subject.crop_pct, fill), {})[name] = subject
    return groups.values()
