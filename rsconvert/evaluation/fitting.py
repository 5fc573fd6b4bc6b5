"""Whether data fits a network: colours, classes, targets."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from rsconvert.data import (
    MaskReading,
    Pairs,
    Resize,
    Samples,
    Split,
    check_channels,
    is_plain,
    open_pairs,
    open_split,
    read_class_map,
)
from rsconvert.errors import ConfigError, DataError, UnsupportedModelError
from rsconvert.models import Source, example_stem, recognised_task, source_of
from rsconvert.surgery import SwitchableModel
from rsconvert.text import plain, printable

_SIDE = 224  # in pixels, of an image that is followed to the first layer of a plain model

__all__ = [
    "Masks",
    "check_classes",
    "check_classifies",
    "check_colours",
    "check_labels",
    "check_names_classes",
    "check_pairs",
    "check_targets",
    "known_source",
    "mapped_outputs",
    "open_labelled",
]


def known_source(model: nn.Module) -> Source:
    """Return what is known of a network, switchable or plain."""
    if isinstance(model, SwitchableModel):
        return model.source
    source = source_of(model)
    if source != Source():
        return source
    return Source(task=recognised_task(model)).with_channels(example_stem(model, _SIDE).channels)


@dataclass(frozen=True, kw_only=True)
class Masks:
    """How the masks of segmentation are read, and how whole images become views.

    Attributes:
        label_offset: is subtracted from the values of masks; what becomes negative is ignored.
        class_names: a file with the name of each class, one a line.
        resize: ``squash``, ``short-side`` or ``pad``, see ``whole_views``.
    """

    label_offset: int = 0
    class_names: str | None = None
    resize: Resize = "squash"


def open_labelled(
    net: nn.Module, data: str, split: Split | float, masks: Masks | None = None, *, root: str | None = None
) -> Samples:
    """Open one split of a data set as the network's task needs it: images with a class, or with a mask.

    A line of the log says if images of a plain folder may be those that the network was trained on.

    Raises:
        DataError: as ``open_split`` or ``open_pairs``.
        ConfigError: ``masks`` has no effect, because the network's task is classification.
    """
    source = known_source(net)
    if not source.task.dense:
        if masks is not None and masks != Masks():
            name, value = next((k, v) for k, v in vars(masks).items() if v != getattr(Masks(), k))
            raise ConfigError(f"{name} is {value} and has no effect, because the network's task is classification.")
        _log_division(source, data, split)
        return open_split(data, split, root=root)
    if isinstance(split, float):
        raise ConfigError(f"split is {split}, and images with masks are not divided; val, test or train is accepted.")
    assert source.task.ignore_index is not None
    how = masks or Masks()
    reading = MaskReading(
        classes=source.num_classes, ignore_index=source.task.ignore_index, label_offset=how.label_offset
    )
    return open_pairs(data, split, reading, class_names=how.class_names, root=root)


def _log_division(source: Source, data: str, split: Split | float) -> None:
    share = (source.training or {}).get("split")
    if share is None or share == split or not Path(data).is_dir() or not is_plain(Path(data)):
        return
    logging.getLogger(__name__).warning(
        "note: the network was trained on a part of a folder of classes; if that is %s, the figures hold images that "
        "it was trained on. evaluate --split %s measures the others alone",
        printable(data),
        plain(share),
    )


def check_pairs(net: nn.Module, samples: Samples) -> None:
    """Raise a DataError unless the samples have what the network's task needs: a mask, or a class."""
    if known_source(net).task.dense != isinstance(samples, Pairs):
        needed, held = ("a mask", "a class") if known_source(net).task.dense else ("a class", "a mask")
        raise DataError(f"{samples.label} has {held} for each image; the network's task needs {needed}.")


def check_classes(net: nn.Module, samples: Samples, outputs: Sequence[int] | None = None) -> None:
    """Compare what the network takes and returns with what the data holds: colours and classes.

    Args:
        outputs: the output of each class, where the network has more of them; None takes them in order.
    Raises:
        DataError: the network takes neither colours nor grey; the number of classes differs, an output does not exist,
            or the network was trained on classes of other names, or in another order.
        UnsupportedModelError: as `check_names_classes`.
    """
    check_colours(net)
    check_names_classes(net)
    check_pairs(net, samples)
    source, names = known_source(net), samples.classes
    count, known = source.num_classes, source.class_names
    if outputs is not None and count is not None:
        _check_index("the class map has the index", max(outputs), count)
    if outputs is not None or names is None:
        return
    if count is not None and len(names) != count:
        raise DataError(
            f"the data has {len(names)} classes, the classifier {count} outputs; one output per class is needed. "
            f"Convert with rsconvert wrap … --num-classes {len(names)}, or give each class its output by --class-map."
        )
    if known is not None and known != names:
        own, new = next(((a, b) for a, b in zip(known, names, strict=False) if a != b), (len(known), len(names)))
        raise DataError(
            f"the data has the class {new!r} where the network was trained on {own!r}; the same classes in the same "
            "order are needed. Check the data."
        )


def mapped_outputs(samples: Samples, class_map: str | Path | None) -> tuple[int, ...] | None:
    """Return the output of each class by a file, see `read_class_map` and its errors; None without one."""
    if class_map is not None and isinstance(samples, Pairs):
        raise ConfigError(f"class_map is {class_map}; masks hold the outputs themselves. Leave it out.")
    return None if class_map is None else read_class_map(class_map, samples.classes)


def check_colours(net: nn.Module) -> None:
    """Raise a DataError unless the network takes images of three colours or of grey, and has a mean for each."""
    path, side = (net.at(net.native), net.native) if isinstance(net, SwitchableModel) else (net, _SIDE)
    check_channels(channels := example_stem(path, side).channels)
    if (held := known_source(net).preprocessing.channels) != channels:
        raise DataError(
            f"the network's mean has {held} numbers, and its images have the channels {channels}; a number for each is "
            "needed. Set net.source.preprocessing."
        )


def check_classifies(net: nn.Module, what: str) -> None:
    """Raise an UnsupportedModelError for a network of masks, where ``what`` needs one prediction for each image."""
    if known_source(net).task.dense:
        raise UnsupportedModelError(
            f"{what} needs one prediction for each image, and the network gives one for each position; a classifier is "
            "accepted. Measure its masks: rsconvert evaluate."
        )


def check_names_classes(net: nn.Module) -> None:
    """Raise an UnsupportedModelError for a network of masks that gives one number for each position."""
    source = known_source(net)
    if source.task.dense and source.num_classes == 1:
        raise UnsupportedModelError(
            "the network gives one number for each position; logits of at least two classes are needed. Give it two."
        )


def check_targets(targets: Tensor, logits: Tensor, outputs: Sequence[int] | None = None) -> None:
    """Raise a DataError unless logits (N, C) have a column for each target, or for each of ``outputs``."""
    if outputs is not None:
        _check_index("the class map has the index", max(outputs), logits.shape[1])
    check_labels(targets, logits.shape[1] if outputs is None else len(outputs))


def check_labels(targets: Tensor, outputs: int) -> None:
    """Raise a DataError unless class indices are below the number of outputs; on a GPU a loss would end all work."""
    if targets.numel():
        _check_index("a target is", int(targets.max()), outputs)


def _check_index(words: str, index: int, outputs: int) -> None:
    if index >= outputs:
        raise DataError(
            f"{words} {index}; the network has {outputs} outputs, so 0 to {outputs - 1} is accepted, one per class."
        )
