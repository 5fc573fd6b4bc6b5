"""The input of a network's classifier: the values at the global pooling, as a rule."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from rsconvert.data import ViewLoader, normalize
from rsconvert.errors import UnsupportedModelError
from rsconvert.evaluation import autocast, float_dtype
from rsconvert.models import classifier_keys
from rsconvert.surgery import SwitchableModel, eval_mode

__all__ = ["pooled_features"]


@torch.no_grad()
def pooled_features(
    net: SwitchableModel,
    resolutions: Sequence[int],
    loader: ViewLoader,
    *,
    amp: torch.dtype = torch.float32,
    progress: bool = False,
    check: Callable[[], None] = lambda: None,
) -> dict[int, NDArray[np.float32]]:
    """Return the classifier's input, (N, features), for the views of a loader; the loader is closed.

    Args:
        amp: as of ``choose_precision``.
        check: is called after each batch, and may raise.
    Raises:
        UnsupportedModelError: the network has no classifier.
    """
    paths = {r: net.at(r) for r in resolutions}
    dtype = float_dtype(net)
    batches: dict[int, list[Tensor]] = {r: [] for r in resolutions}
    with closing(loader), eval_mode(paths.values()):
        for views, _ in tqdm(loader, desc="pooling", unit="batch", disable=not progress, leave=False):
            for (r, path), view in zip(paths.items(), views, strict=True):
                image = normalize(view.to(net.alpha.device), net.source.preprocessing, dtype=dtype)
                # One path after the other: they share the classifier.
                with autocast(image.device, amp), _classifier_input(path) as inputs:
                    path(image)
                batches[r].append(_pooled(inputs[0]).float().cpu())
            check()
    return {r: torch.cat(found).numpy() for r, found in batches.items()}


@contextmanager
def _classifier_input(path: nn.Module) -> Iterator[list[Tensor]]:
    """Give a list that receives the input of the classifier's layers, the first that runs first."""
    names = {key.rpartition(".")[0] for key in classifier_keys(path)}
    if not names:
        raise UnsupportedModelError(
            f"{type(path).__name__} has no classifier, whose input would be the pooled values; logits (N, classes) are "
            "needed. Take a classification network."
        )
    seen: list[Tensor] = []
    hooks = [path.get_submodule(n).register_forward_pre_hook(lambda _, args: seen.append(args[0])) for n in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _pooled(values: Tensor) -> Tensor:
    return values if values.ndim == 2 else values.flatten(2).mean(2)
