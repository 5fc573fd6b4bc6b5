"""A network under test: a path for each size, the images that it wants, the outputs that count."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rsconvert.data import Preprocessing, Size, normalize
from rsconvert.errors import ConfigError, UnsupportedModelError
from rsconvert.evaluation.cost import multiply_adds
from rsconvert.evaluation.device import autocast
from rsconvert.evaluation.fitting import check_targets, known_source
from rsconvert.evaluation.sizes import resolution_of
from rsconvert.surgery import SwitchableModel

__all__ = ["Subject", "crop_shares"]


class Subject:
    """What evaluation knows of a network: switchable, or a plain model that runs at every size as it is.

    Args:
        outputs: the output of each class, where the network has more of them.
    Raises:
        ResolutionError: the network does not work at a size.
        ConfigError: ``crop_pct`` has another length than the trained resolutions.
    """

    def __init__(self, model: nn.Module, sizes: Sequence[Size], outputs: Sequence[int] | None = None) -> None:
        self.trained: tuple[int, ...] = ()
        self.alpha: Tensor | None = None
        self.paths = dict.fromkeys(sizes, model)
        if isinstance(model, SwitchableModel):
            self.trained = model.resolutions
            self.paths = {size: model.at(resolution_of(size)) for size in sizes}
            self.alpha = model.alpha if set(self.trained) <= self.paths.keys() else None
        self.preprocessing = known_source(model).preprocessing
        self.crop_pct = crop_shares(self.preprocessing, self.trained, sizes)
        self.costs = {size: multiply_adds(path, size) for size, path in self.paths.items()}
        self._outputs = outputs
        like = next(p for p in model.parameters() if p.is_floating_point())
        self._dtype, self._device = like.dtype, like.device

    @property
    def sizes(self) -> tuple[Size | None, ...]:
        """The sizes that give answers, and None if the ensemble does."""
        return (*self.paths, *(() if self.alpha is None else (None,)))

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return self._device.type == "cuda"

    def interpolated(self, size: Size) -> bool:
        """Tell whether the path of a size holds no trained BN set of its own."""
        return bool(self.trained) and resolution_of(size) not in self.trained

    def logits(
        self, views: Sequence[Tensor], targets: Tensor, amp: torch.dtype = torch.float32
    ) -> dict[Size | None, Tensor]:
        """Return logits (N, classes) by size, in at least float32; under None those of the ensemble, if it has one.

        Args:
            views: uint8 images (N, 3, H, W), one batch per size.
            targets: their classes, which must exist.
            amp: as of `choose_precision`.
        """
        given: dict[Size | None, Tensor] = {}
        for (size, path), view in zip(self.paths.items(), views, strict=True):
            every = self._run(path, view, amp)
            check_targets(targets, every, self._outputs)
            given[size] = every if self._outputs is None else every[:, self._outputs]
        if self.alpha is not None:
            given[None] = self._ensemble([given[r] for r in self.trained])
        return given

    def _run(self, path: nn.Module, view: Tensor, amp: torch.dtype) -> Tensor:
        image = normalize(view.to(self._device, non_blocking=True), self.preprocessing, dtype=self._dtype)
        with autocast(self._device, amp):
            output = path(image)
        if not isinstance(output, Tensor) or output.ndim != 2:
            found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise UnsupportedModelError(
                f"the network's output is a {found}; logits (N, classes) are needed to count hits. Wrap the model."
            )
        logits: Tensor = output.to(torch.promote_types(output.dtype, torch.float32))
        return logits

    def _ensemble(self, trained: Sequence[Tensor]) -> Tensor:
        """Weigh the logits of the trained resolutions by softmax(alpha) (RS-Nets, Eq. 5)."""
        assert self.alpha is not None
        logits = torch.stack(list(trained))
        ensemble: Tensor = torch.tensordot(self.alpha.to(logits).softmax(0), logits, 1)
        return ensemble


def crop_shares(preprocessing: Preprocessing, trained: Sequence[int], sizes: Sequence[Size]) -> tuple[float, ...]:
    """Return crop_pct for each size: an untrained one takes that of its nearest trained one.

    Raises:
        ConfigError: ``crop_pct`` has another length than the trained resolutions.
    """
    shares = preprocessing.crop_pct
    if not isinstance(shares, tuple):
        return (shares,) * len(sizes)
    if len(shares) != len(trained):
        raise ConfigError(
            f"crop_pct has {len(shares)} numbers; {len(trained)} are needed, one per trained resolution, or one for "
            "all. Correct it."
        )
    nearest = [min(trained, key=lambda own: abs(own - resolution_of(size))) for size in sizes]
    return tuple(shares[trained.index(r)] for r in nearest)
