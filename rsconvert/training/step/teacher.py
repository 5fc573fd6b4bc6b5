"""The teacher other than the views: another network, or the one that is finetuned as it starts."""

from pathlib import Path

import torch
from torch import Tensor, nn

from rsconvert.checkpoint import load_alongside
from rsconvert.data import Preprocessing
from rsconvert.errors import ConfigError
from rsconvert.evaluation import float_dtype
from rsconvert.models import Task, count_outputs, create_model, is_file_name, source_of
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel

__all__ = ["Teacher", "create_teacher"]


class Teacher:
    """Gives the logits of images that are normalized for the student; it never learns."""

    def __init__(
        self,
        model: nn.Module,
        own: Preprocessing,
        student: Preprocessing,
        device: torch.device,
        task: Task | None = None,
    ) -> None:
        self.model, self._task = model.to(device).eval().requires_grad_(False), task or Task()
        # (x · std + mean - own mean) / own std, of x as the student takes it.
        facts = (student.std, student.mean, own.std, own.mean)
        std, mean, own_std, own_mean = (torch.tensor(values).view(-1, 1, 1).to(device) for values in facts)
        self._scale, self._shift = std / own_std, (mean - own_mean) / own_std
        self._same = own.std == student.std and own.mean == student.mean

    @torch.no_grad()
    def __call__(self, view: Tensor) -> Tensor:
        image = view if self._same else torch.addcmul(self._shift.to(view), view, self._scale.to(view))
        return self._task.logits(self.model(image))


def create_teacher(net: SwitchableModel, config: FinetuneConfig, device: torch.device) -> Teacher | None:
    """Return the teacher of a run, if it has one other than its own paths.

    ``teacher`` names a switchable checkpoint or the folder of a run, whose native path teaches (``load_alongside``), or
    a model as for ``create_model``, with its weights. Without labels and a name it is a copy of the network's native
    path; a frozen one teaches itself.

    Raises:
        ConfigError: the teacher has another number of outputs.
        UnsupportedModelError, CheckpointError: there is no such model or checkpoint.
    """
    student = net.source.preprocessing
    if config.teacher is not None:
        model, own, task = _named(config.teacher, net)
        return Teacher(model, own, student, device, task)
    if config.labels == "none" and config.train != "bn":
        return Teacher(net.extract(net.native), student, student, device, net.source.task)
    return None


def _named(name: str, net: SwitchableModel) -> tuple[nn.Module, Preprocessing, Task]:
    if name.endswith(".safetensors") or Path(name).is_dir():
        known = load_alongside(name, net)
        model, source = known.extract(known.native), known.source
    else:
        model = create_model(name, pretrained=not is_file_name(name))
        source = source_of(model)
    if source.task.name != net.source.task.name:
        raise ConfigError(
            f"teacher is {name}, a network of {source.task.name}; one of {net.source.task.name} is needed, as the "
            "network is."
        )
    if source.preprocessing.channels != (wanted := net.source.preprocessing.channels):
        raise ConfigError(
            f"teacher is {name}, which takes images of {source.preprocessing.channels} channels; one of {wanted} is "
            "needed, as the network is."
        )
    taught, own = count_outputs(net.at(net.native), net.source.task), count_outputs(model, source.task)
    if own != taught:
        raise ConfigError(f"teacher is {name}, which has {own} outputs; {taught} are needed, those of the network.")
    theirs, ours = source.class_names, net.source.class_names
    if theirs and ours and theirs != ours:
        raise ConfigError(
            f"teacher is {name}, which knows the classes {', '.join(theirs[:3])}, …; the network's "
            f"{', '.join(ours[:3])}, … are needed in their order."
        )
    return model.to(float_dtype(net)), source.preprocessing, source.task
