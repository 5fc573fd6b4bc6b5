"""Board: curves of a run for TensorBoard."""

import importlib.util
from collections.abc import Sequence

from rsconvert.errors import ConfigError
from rsconvert.training.loss import MREDLoss
from rsconvert.training.run.summary import Row

__all__ = ["Board"]


class Board:
    """Writes loss parts and rate of each step, and the row of each epoch, into a folder.

    Args:
        first: the first step to write; what an earlier run wrote from there on is dropped.
    Raises:
        ConfigError: the package tensorboard is not installed, or the folder can't be written.
    """

    def __init__(self, folder: str, first: int = 1) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(
                f"log_dir is {folder}, but the package tensorboard is not installed; it writes the curves. "
                "Run `pip install rsconvert[tensorboard]`, or leave log_dir out."
            )
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._writer = SummaryWriter(folder, purge_step=first)
        except OSError as error:
            raise ConfigError(f"log_dir {folder} can't be written ({error}); a folder is needed.") from error

    def add_step(self, parts: Sequence[float], lr: float, steps: int) -> None:
        """Add the parts of the loss in the order of MREDLoss, and the learning rate."""
        for name, value in zip(MREDLoss._fields, parts, strict=True):
            self._writer.add_scalar(f"step/{name}", value, steps)
        self._writer.add_scalar("step/lr", lr, steps)

    def add_epoch(self, row: Row, steps: int) -> None:
        """Add all numbers of a row of the summary."""
        for name, value in row.items():
            self._writer.add_scalar(f"epoch/{name}", value, steps)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
