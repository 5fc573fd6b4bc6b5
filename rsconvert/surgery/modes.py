"""Train and eval modes that last for a while."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from rsconvert.surgery.network import SwitchableModel

__all__ = ["eval_mode"]


@contextmanager
def eval_mode(models: Iterable[nn.Module]) -> Iterator[None]:
    """Set eval mode, and each module's own mode again at the end."""
    models = list(models)
    modes = {module: module.training for model in models for module in _running(model)}
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _running(model: nn.Module) -> Iterable[nn.Module]:
    return model.running_modules() if isinstance(model, SwitchableModel) else nn.Module.modules(model)
