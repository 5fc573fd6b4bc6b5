"""MREDTask: the loss as a training loop of timm takes it, with the collator of its views."""

from collections.abc import Sequence
from random import Random
from typing import Any, cast

import timm
import torch
from PIL import Image
from timm.utils import unwrap_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import default_collate

from rsconvert.data import Augmentation, from_pillow, normalize, training_views
from rsconvert.errors import ConfigError, DataError, UnsupportedModelError
from rsconvert.evaluation import check_labels, check_logits
from rsconvert.models import classifier_keys
from rsconvert.quantization import layout_of
from rsconvert.settings import Distillation, FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.loss import mred_loss
from rsconvert.training.step import fill_defaults

try:
    from timm.task import TrainingTask
except ImportError as error:
    raise ConfigError(
        f"timm is {timm.__version__}, which has no training tasks; MREDTask needs 1.0.30 or later. "
        "Run `pip install -U timm`."
    ) from error

__all__ = ["MREDTask", "ViewCollator", "Views"]


class Views(list[Tensor]):
    """S views (N, C, r, r) that move like one tensor, as timm's training script moves its input."""

    def to(self, *args: Any, **kwargs: Any) -> "Views":
        """Move each view."""
        return Views(view.to(*args, **kwargs) for view in self)

    def contiguous(self, **kwargs: Any) -> "Views":
        """Change the memory format of each view."""
        return Views(view.contiguous(**kwargs) for view in self)

    @property
    def shape(self) -> torch.Size:
        """That of the largest view, whose first number counts the images."""
        return self[0].shape


class ViewCollator:
    """Make a batch of one random crop of each image, resized to every resolution, normalized as the network expects.

    It is the ``collate_fn`` of a loader over a data set of timm without a transform: the crop is cut from the original
    pixels, in the worker process. Randomness comes from torch's global generator there.

    Args:
        augmentation: None takes crops as ``finetune`` does by default.
    """

    def __init__(self, net: SwitchableModel, augmentation: Augmentation | None = None) -> None:
        self._resolutions, self._preprocessing = net.resolutions, net.source.preprocessing
        area = fill_defaults(net, FinetuneConfig()).crop_area
        assert area is not None
        default = Augmentation(crop_area=(area[0], area[1]), interpolation=self._preprocessing.interpolation)
        self._augmentation = augmentation or default

    def __call__(self, samples: Sequence[tuple[Any, Any]]) -> tuple[Views, Tensor]:
        """Return S views (N, C, r, r), float32, and the targets of N pairs (Pillow image, target).

        Raises:
            DataError: an image is none of Pillow's.
        """
        cut = [self._cut(image) for image, _ in samples]
        views = Views(normalize(torch.stack(group), self._preprocessing) for group in zip(*cut, strict=True))
        return views, cast(Tensor, default_collate([target for _, target in samples]))

    def _cut(self, image: object) -> list[Tensor]:
        if not isinstance(image, Image.Image):
            raise DataError(
                f"the data set gives a {type(image).__name__}; a Pillow image is needed, because each view is cut from "
                "the original pixels. Set its transform to None."
            )
        rng = Random(int(torch.randint(2**63 - 1, ())))
        channels = self._preprocessing.channels
        return training_views(from_pillow(image), self._resolutions, rng, self._augmentation, channels)


# timm's types are skipped, see pyproject.toml.
class MREDTask(TrainingTask):  # type: ignore[misc]
    """A training task of timm: S views and their targets → the MRED loss (RS-Nets, Eqs. 5-10).

    ``trainable_module`` is the switchable network, with alpha, so that optimizers, moving averages, checkpoints and
    DistributedDataParallel take it as they take a plain model. Device, dtype and verbose are those of any task.

    Args:
        net: on its device already; trained in place.
        distill: which loss, see ``mred_loss``.
        label_smoothing: share of the target that is spread over all classes.
    """

    def __init__(
        self,
        net: SwitchableModel,
        distill: Distillation = "full",
        *,
        label_smoothing: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ) -> None:
        if net.source.task.dense:
            raise ConfigError("MREDTask trains on one class per image; finetune trains segmentation. Use finetune.")
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        if layout_of(net):
            raise UnsupportedModelError(
                "the network is quantized, and timm's loop would step its few-bit weights themselves; a float network "
                "is needed. Train it by finetune, or in a loop of your own with FloatWeights."
            )
        self.trainable_module: nn.Module = net
        self.distill, self.label_smoothing = distill, label_smoothing

    @property
    def net(self) -> SwitchableModel:
        """The network itself."""
        return cast(SwitchableModel, unwrap_model(self.trainable_module))

    def forward(self, input: Sequence[Tensor], target: Tensor) -> dict[str, Tensor]:
        """Return ``loss``, its three parts, and ``output``, the logits of the native view.

        Args:
            input: S normalized views (N, C, r, r), from the largest to the smallest resolution.
            target: class indices, (N,), or probabilities (N, classes).
        Raises:
            ResolutionError: there are not S views.
            UnsupportedModelError: the network's output is no logits (N, classes).
            DataError: a target is beyond the network's outputs.
        """
        task = self.net.source.task
        logits = [check_logits(output, task) for output in self.trainable_module(views=list(input))]
        if not target.is_floating_point():
            check_labels(target, logits[0].shape[1])
        loss = mred_loss(logits, target, self.net.alpha, self.distill, label_smoothing=self.label_smoothing)
        parts = loss._asdict()
        return {"loss": parts.pop("total"), "output": logits[0], **parts}

    def prepare_distributed(self, device_ids: list[Any] | None = None, **ddp_kwargs: Any) -> "MREDTask":
        """Share the gradients of the network among the processes."""
        self.trainable_module = DistributedDataParallel(self.trainable_module, device_ids=device_ids, **ddp_kwargs)
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: each path is a program of its own.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("MREDTask does not compile its paths; finetune does, by compile. Leave --torchcompile out.")

    def get_clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """Return what is clipped: everything, or all but the classifier, of every path where it is private."""
        keys = classifier_keys(self.net.at(self.net.native), self.net.source.task) if exclude_head else ()
        head = {self.net.at(r).get_parameter(key) for r in self.net.resolutions for key in keys}
        return [parameter for parameter in self.net.parameters() if parameter not in head]
