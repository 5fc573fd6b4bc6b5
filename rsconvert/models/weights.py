"""Weights from a file into a plain model: taken out of what others wrap around a state_dict, loaded strictly."""

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rsconvert.errors import CheckpointError, first_line
from rsconvert.models.classifier import classifier_keys

__all__ = ["load_state", "load_weights", "unwrapped"]

# Those of timm first, the average before the weights that it is of, as timm's own loader does; then Lightning's.
_PLACES = ("state_dict_ema", "model_ema", "state_dict", "model")
# DistributedDataParallel and AveragedModel; torch.compile; Lightning's modules, by their usual attribute.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_COUNTERS = ("n_averaged",)  # of AveragedModel, next to the model


def load_weights(model: nn.Module, path: Path) -> tuple[list[str], str]:
    """Load a safetensors or torch file strictly, without pickle, out of what wrappers put around it.

    Returns:
        The classifier's keys if they stay new; the path, with what was taken and stripped.
    Raises:
        CheckpointError: the file can't be read, or holds other tensors than the model.
    """
    if not path.is_file():
        raise CheckpointError(f"weights {path} is not a file; a safetensors or torch file is needed.")
    try:
        if path.suffix == ".safetensors":
            held: Any = load_file(path)
        else:
            with torch.serialization.safe_globals([Namespace]):  # mere data, which timm's checkpoints hold
                held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors errors share no base
        raise CheckpointError(
            f"weights {path} can't be read: {first_line(error)}; a safetensors file, or a torch file of "
            "tensors alone, is needed. Save the state_dict again."
        ) from error
    found = unwrapped(held, model.state_dict().keys())
    if found is None:
        raise CheckpointError(
            f"weights {path} holds no state_dict; tensors by name are needed. Save model.state_dict()."
        )
    state, stripped = found
    return load_state(model, state, str(path)), f"{path} ({stripped})" if stripped else str(path)


def load_state(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> list[str]:
    """Load strictly, except for a classifier that is missing or of another size; return the keys that stay new."""
    own, head = model.state_dict(), classifier_keys(model)
    fits = all(key in state and state[key].shape == own[key].shape for key in head)
    fresh = [] if fits else head
    wanted = own.keys() - set(fresh)
    # torch fills the counters in, as files from before them demand; nothing but momentum=None reads one.
    missing = sorted(k for k in wanted - state.keys() if not k.endswith("num_batches_tracked"))
    foreign = sorted(state.keys() - own.keys())
    misfit = sorted(k for k in wanted & state.keys() if own[k].shape != state[k].shape)
    for what, keys in (("lacks", missing), ("holds foreign", foreign), ("has in another shape", misfit)):
        if keys:
            raise CheckpointError(
                f"weights {origin} {what} {_some(keys)}; exactly the model's tensors are needed, except the "
                "classifier's. Check the model's name and model_kwargs."
            )
    whole = OrderedDict({**state, **{key: own[key] for key in fresh}})
    # torchvision's MNASNet asks for its version. Not those of all modules: without one, BatchNorm adds its counter.
    whole._metadata = {"": own._metadata[""]}  # type: ignore[attr-defined]
    model.load_state_dict(whole)
    return fresh


def unwrapped(held: Any, own: Collection[str]) -> tuple[dict[str, Tensor], str] | None:
    """Return the state_dict in what a file held, and in words what was stripped; None if there is none.

    A prefix is taken off where no name of the model stands without it; prefixes may be nested. What stands next to the
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
    left_out = [key for key in state if not key.startswith(prefix) and key not in _COUNTERS]
    words = (
        place,
        f"without the prefix {prefix}" if prefix else "",
        f"left out: {_some(left_out)}" if left_out else "",
    )
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return inside, "; ".join(filter(None, words))


def _prefix(names: Collection[str], own: Collection[str], before: str = "") -> str | None:
    """Return the prefix under which names of the model stand; None if there is none."""
    if any(before + name in names for name in own):
        return before
    longer = [before + prefix for prefix in _PREFIXES if any(name.startswith(before + prefix) for name in names)]
    return next((found for one in longer if (found := _prefix(names, own, one)) is not None), None)


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
