"""A cascade: one network, its small resolutions first, the large ones for images of which the small are not sure.

    images → smallest stage → sure? its prediction : the next stage → …

The confidence is the probability of the predicted class, the largest of the softmax. The last stage keeps all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rsconvert.errors import ConfigError, ResolutionError
from rsconvert.evaluation import check_logits
from rsconvert.surgery import SwitchableModel, check_stages, side_of

__all__ = ["Cascade", "CascadeOutput", "cascade"]


class CascadeOutput(NamedTuple):
    """What a cascade predicts for N images: logits (N, C), and the resolution that answered each, (N,), int64."""

    logits: Tensor
    resolution: Tensor


class Cascade:
    """The paths of a network, run from the smallest resolution to the largest.

    It holds its paths, so a server makes it once; threads may share it. Paths of untrained resolutions are snapshots
    (see ``SwitchableModel.at``): make it again when the network has changed.

    Args:
        stages: resolutions in pixels, trained or not, from the smallest to the largest; at least two.
        thresholds: for each stage but the last the confidence from which a prediction is kept, in [0, 1].
        outputs: those among which the confidence is counted, if the network has more of them than the task.
    Raises:
        ResolutionError, ConfigError: an argument is malformed, or the source can't be built for a stage.
    """

    def __init__(
        self,
        net: SwitchableModel,
        stages: Sequence[int],
        thresholds: Sequence[float],
        outputs: Sequence[int] | None = None,
    ) -> None:
        self.stages = check_stages(stages, thresholds)
        self.thresholds = tuple(thresholds)
        self._paths = [net.at(resolution) for resolution in self.stages]
        self._outputs = None if outputs is None else list(outputs)
        self._interpolation = net.source.preprocessing.interpolation

    @classmethod
    def stored(cls, net: SwitchableModel) -> "Cascade":
        """Return the cascade that was fitted to a network and is stored with it; raise a ConfigError without one."""
        known = net.measured.cascade
        if known is None:
            raise ConfigError(
                "the network has no cascade; thresholds fitted to labelled images are needed. Fit them: rsconvert "
                "cascade CHECKPOINT --data DIR; or give stages and thresholds to rsconvert.runtime.Cascade."
            )
        return cls(net, known["stages"], known["thresholds"], known.get("outputs"))

    @torch.no_grad()
    def __call__(self, images: Tensor | Sequence[Tensor]) -> CascadeOutput:
        """Run a batch, of which each stage takes what the one before left undecided.

        Args:
            images: (N, C, H, W), normalized, as large as the last stage or larger; for each stage they are resized,
                antialiased. Or a batch of that kind for each stage, in their order, taken as they are.
        Raises:
            ResolutionError: the images are too small, or the number of batches is not that of the stages.
            ConfigError: the network is in train mode.
            UnsupportedModelError: its output is not logits (N, C).
        """
        if any(path.training for path in self._paths):
            raise ConfigError("the network is in train mode; a cascade needs eval mode. Call net.eval().")
        views = self._checked(images)
        left = torch.arange(len(views[0]), device=views[0].device)
        logits, answered = torch.empty(0), torch.empty_like(left)
        for i, (resolution, path) in enumerate(zip(self.stages, self._paths, strict=True)):
            view = views[i] if len(left) == len(views[i]) else views[i][left]
            given = check_logits(path(self._resized(view, resolution) if isinstance(images, Tensor) else view))
            kept = self._sure(given, i)
            if i == 0:
                logits = torch.empty_like(given)
            logits[left[kept]] = given[kept]
            answered[left[kept]] = resolution
            left = left[~kept]
            if not len(left):
                break
        return CascadeOutput(logits, answered)

    def _checked(self, images: Tensor | Sequence[Tensor]) -> list[Tensor]:
        if not isinstance(images, Tensor):
            if len(images) != len(self.stages) or len({len(view) for view in images}) > 1:
                raise ResolutionError(
                    f"the batches are {len(images)} of {', '.join(str(len(view)) for view in images)} images; one for "
                    f"each of {self.stages} is needed, of the same images."
                )
            return list(images)
        if side_of(images) < self.stages[-1]:
            raise ResolutionError(
                f"the images are of {tuple(images.shape[-2:])}; the last stage needs at least {self.stages[-1]} pixels."
            )
        return [images] * len(self.stages)

    def _resized(self, images: Tensor, resolution: int) -> Tensor:
        side = side_of(images)
        if side == resolution:
            return images
        size = [round(length * resolution / side) for length in images.shape[-2:]]
        exact = images.to(torch.promote_types(images.dtype, torch.float32))  # no 16-bit resizing on CPUs
        return F.interpolate(exact, size, mode=self._interpolation, antialias=True).to(images.dtype)

    def _sure(self, logits: Tensor, stage: int) -> Tensor:
        if stage == len(self.thresholds):
            return torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        counted = logits if self._outputs is None else logits[:, self._outputs]
        return counted.softmax(1).amax(1) >= self.thresholds[stage]


def cascade(net: SwitchableModel, images: Tensor | Sequence[Tensor]) -> CascadeOutput:
    """Run images through the cascade that is stored with a network; a server holds a `Cascade`, whose errors these are.

    Raises:
        ConfigError: no cascade is stored, or the network is in train mode.
    """
    return Cascade.stored(net)(images)
