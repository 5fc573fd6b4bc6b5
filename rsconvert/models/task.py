"""Task: what a network gives for an image, and where in its output the logits are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from torch import Tensor, nn

from rsconvert.errors import ConfigError, UnsupportedModelError

__all__ = ["Metric", "Task", "TaskName", "chosen_task", "recognised_task"]

TaskName = Literal["classification", "segmentation"]


@dataclass(frozen=True)
class Metric:
    """The score by which networks of a task are judged, in percent: its name in files, and in tables."""

    key: str
    title: str


_METRICS = {"classification": Metric("top1", "top-1"), "segmentation": Metric("miou", "mIoU")}
_IGNORED = 255
_AUXILIARY_WEIGHT = 0.5
_SHAPES = {"classification": (2, "(N, classes)"), "segmentation": (4, "(N, classes, H, W)")}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a network's logits stand for: a class for each image, or for each position.

    Attributes:
        name: ``classification`` or ``segmentation``.
        output: where the logits are in an output that holds several tensors: a key of a dict, a name or a number of a
            tuple. An output that is a tensor is the logits.
        ignore_index: of segmentation, the value of a mask where nothing is known; 255 by default.
        auxiliary: further outputs in train mode, each with the weight of its loss.
    Raises:
        ConfigError: a value is unknown, or has no effect on the task.
    """

    name: TaskName = "classification"
    output: str | None = None
    ignore_index: int | None = None
    auxiliary: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in get_args(TaskName):
            raise ConfigError(f"task is {self.name!r}; {', '.join(get_args(TaskName))} are accepted.")
        if self.ignore_index is None and self.dense:
            object.__setattr__(self, "ignore_index", _IGNORED)
        if self.ignore_index is not None and not self.dense:
            raise ConfigError(
                f"ignore_index is {self.ignore_index} and the task is {self.name}, which ignores no position. Leave it "
                "out, or set the task to segmentation."
            )
        if self.ignore_index is not None and type(self.ignore_index) is not int:
            raise ConfigError(f"ignore_index is {self.ignore_index!r}; a whole number is accepted, such as 255.")
        for key, weight in self.auxiliary.items():
            if key == self.output or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise ConfigError(
                    f"auxiliary has {key!r} with {weight!r}; another output than {self.output!r}, with a weight of 0 "
                    "or more, is accepted."
                )

    def __str__(self) -> str:
        facts = {"output": self.output, "ignore_index": self.ignore_index}
        parts = [f"{key} {value}" for key, value in facts.items() if value is not None]
        parts += [f"auxiliary {key} with weight {weight:g}" for key, weight in self.auxiliary.items()]
        return ", ".join([self.name, *parts])

    @property
    def metric(self) -> Metric:
        """The score by which its networks are judged."""
        return _METRICS[self.name]

    @property
    def dense(self) -> bool:
        """Whether each position has logits of its own."""
        return self.name == "segmentation"

    def logits(self, output: object) -> Tensor:
        """Return the logits in what a network returns: (N, classes), or (N, classes, H, W) for segmentation.

        Raises:
            UnsupportedModelError: there are none.
        """
        found = output if isinstance(output, Tensor) or self.output is None else _part(output, self.output)
        ndim, shape = _SHAPES[self.name]
        if isinstance(found, Tensor) and found.ndim == ndim:
            return found
        key = "" if found is output else f" {self.output!r}"
        other = "Wrap the model." if self.dense or not _is_dense(found) else "Wrap the model, or set task=segmentation."
        named = f"Name theirs by output (--output-key): {', '.join(_keys(output))}" if _keys(output) else ""
        raise UnsupportedModelError(
            f"the network's output{key} is a {_described(found)}; logits {shape} are needed. "
            + (f"{named}; or wrap the model." if named else other)
        )

    def auxiliary_logits(self, output: object) -> list[Tensor]:
        """Return the logits of each auxiliary output whose weight is above 0; none of an output that is a tensor.

        Raises:
            UnsupportedModelError: one is missing.
        """
        if isinstance(output, Tensor):
            return []
        wanted = [key for key, weight in self.auxiliary.items() if weight]
        return [replace(self, output=key, auxiliary={}).logits(output) for key in wanted]


def recognised_task(model: nn.Module) -> Task:
    """Return the task of a network of torchvision or segmentation_models_pytorch; classification for any other."""
    modules = [kind.__module__ for kind in type(model).__mro__]
    if any(module.startswith("torchvision.models.segmentation") for module in modules):
        has_auxiliary = getattr(model, "aux_classifier", None) is not None
        return Task(name="segmentation", output="out", auxiliary={"aux": _AUXILIARY_WEIGHT} if has_auxiliary else {})
    if any(module.startswith("segmentation_models_pytorch") for module in modules):
        labelled = getattr(model, "classification_head", None) is not None  # it returns masks and labels
        return Task(name="segmentation", output="0" if labelled else None)
    return Task()


def chosen_task(model: nn.Module, known: Task, given: Task | str | Mapping[str, Any] | None) -> Task:
    """Return the task of a model: as given whole, or as known or recognised with the values that are given.

    Raises:
        ConfigError: a value is unknown, or has no effect on the task.
    """
    if isinstance(given, Task):
        return given
    own = {"name": given} if isinstance(given, str) else dict(given or {})
    known = recognised_task(model) if known == Task() else known
    if own.get("name", known.name) != known.name:
        known = Task()
    if own.get("output", known.output) != known.output:  # what else it holds is unknown
        own = {"auxiliary": {}, **own}
    return Task(**{**vars(known), **own})


def _part(output: object, key: str) -> object:
    """Return what an output holds under a key, a name or a number; None if it holds nothing there."""
    if isinstance(output, Mapping):
        return output.get(key)
    if isinstance(output, tuple | list):
        numbers = dict(zip(map(str, range(len(output))), output, strict=True))
        return numbers[key] if key in numbers else _fields(output).get(key)
    return getattr(output, key, None)


def _fields(output: object) -> dict[str, object]:
    return {name: getattr(output, name) for name in getattr(output, "_fields", ())}


def _keys(output: object) -> list[str]:
    if isinstance(output, Mapping):
        return [str(key) for key in output]
    if isinstance(output, tuple | list):
        return list(_fields(output)) or [str(number) for number in range(len(output))]
    return []


def _described(found: object) -> str:
    return f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__


def _is_dense(found: object) -> bool:
    return isinstance(found, Tensor) and found.ndim == 4
