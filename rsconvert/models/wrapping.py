"""What others wrap around a state_dict: the dict of a checkpoint, and prefixes before the model's own names."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Unwrapped", "unwrapped"]

# Those of timm first, the average before the weights that it is of, as timm's own loader does; then Lightning's.
_PLACES = ("state_dict_ema", "model_ema", "state_dict", "model")
# DistributedDataParallel and AveragedModel; torch.compile; Lightning's modules, by their usual attribute.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_COUNTERS = ("n_averaged",)  # of AveragedModel, beside the model


@dataclass(frozen=True)
class Unwrapped:
    """The tensors of a model by its own names; where they stood in the file, under which prefix; what is left out."""

    state: Mapping[str, Tensor]
    place: str = ""
    prefix: str = ""
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [self.place] if self.place else []
        parts += [f"without the prefix {self.prefix}"] if self.prefix else []
        if self.left_out:
            more = f" and {len(self.left_out) - 3} more" if len(self.left_out) > 3 else ""
            parts.append(f"left out: {', '.join(self.left_out[:3])}{more}")
        return "; ".join(parts)


def unwrapped(held: Any, own: Collection[str]) -> Unwrapped | None:
    """Return the state_dict in what a file held; None if there is none.

    A prefix is taken off where no name of the model stands without it; prefixes may be nested. What stands beside the
    prefix, such as the tensors of a loss, is left out, and named.

    Args:
        own: the names of the model's tensors.
    """
    if not isinstance(held, Mapping):
        return None
    place = next((name for name in _PLACES if isinstance(held.get(name), Mapping)), "")
    state = held[place] if place else held
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        return None
    prefix = _prefix(state.keys(), own) or ""
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    left_out = [key for key in state if not key.startswith(prefix)]
    return Unwrapped(inside, place, prefix, tuple(key for key in left_out if key not in _COUNTERS))


def _prefix(names: Collection[str], own: Collection[str], before: str = "") -> str | None:
    """Return the prefix under which names of the model stand; None if there is none."""
    if any(before + name in names for name in own):
        return before
    for prefix in _PREFIXES:
        longer = before + prefix
        if any(name.startswith(longer) for name in names):
            found = _prefix(names, own, longer)
            if found is not None:
                return found
    return None
