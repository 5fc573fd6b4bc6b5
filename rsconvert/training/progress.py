"""Progress: where a run stands, as plain data that a state keeps and that a run goes on from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rsconvert.errors import ConfigError
from rsconvert.training.config import FinetuneConfig

__all__ = ["Progress", "Row", "check_same_run"]

Row = dict[str, Any]

# They change neither a number of the result nor what a state holds.
_FREE = {"workers", "save_minutes", "keep_states", "log_dir", "data_root"}
# With others the tensors of a state have no place.
_FIXED = {"optimizer", "train", "labels", "layer_decay", "decay_all", "ema_decay", "resolutions", "processes"}


@dataclass
class Progress:
    """Full epochs done; of the one in progress the batches, the sums of their losses, seconds, seconds without data."""

    epoch: int = 0
    batches: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    seconds: float = 0.0
    waited: float = 0.0
    rows: list[Row] = field(default_factory=list)
    best: float | None = None

    @property
    def started(self) -> bool:
        """Whether anything was done."""
        return self.epoch > 0 or self.batches > 0

    def add(self, parts: Sequence[float]) -> None:
        """Count a batch with the parts of its loss."""
        self.sums = [a + b for a, b in zip(self.sums, parts, strict=True)]
        self.batches += 1

    def next_epoch(self, row: Row, score: float) -> bool:
        """Close the epoch in progress; return whether it is the best one so far, the first of equals."""
        is_best = self.best is None or score > self.best
        self.best = score if is_best else self.best
        self.rows.append(row)
        self.epoch, self.batches, self.sums, self.seconds, self.waited = self.epoch + 1, 0, [0.0] * 4, 0.0, 0.0
        return is_best


def check_same_run(saved: Mapping[str, Any], config: FinetuneConfig, facts: Mapping[str, Any], *, force: bool) -> None:
    """Compare the settings and facts of a state with those of the run that is to go on from it.

    Raises:
        ConfigError: some differ and ``force`` is not set, or some differ for which the state has no place.
    """
    now = {**asdict(config), **facts}
    differing = [name for name in now if name not in _FREE and _plain(saved.get(name)) != _plain(now[name])]
    told = ", ".join(f"{name} was {_short(saved.get(name))} and is {_short(now[name])}" for name in differing)
    if fixed := [name for name in differing if name in _FIXED]:
        raise ConfigError(
            f"the run to resume differs: {told}; its state fits the same {', '.join(fixed)} alone. "
            "Give the same again, or start another run."
        )
    if differing and not force:
        raise ConfigError(
            f"the run to resume differs: {told}; the same are needed for the same result. "
            "Give them again, or go on with the new ones by --force."
        )


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
