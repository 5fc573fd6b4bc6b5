"""Values for a plain model: a file loads strictly, a classifier apart."""

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rsconvert.errors import CheckpointError, first_line
from rsconvert.models.classifier import classifier_keys
from rsconvert.models.wrapping import unwrapped

__all__ = ["load_state", "load_weights"]


def load_weights(model: nn.Module, path: Path) -> tuple[list[str], str]:
    """Load a safetensors or torch file strictly, without pickle, out of what wrappers put around it.

    Returns:
        The classifier's keys if they stay new; the path, with what was taken and what was stripped, see `unwrapped`.
    Raises:
        CheckpointError: the file can't be read, or holds other tensors than the model.
    """
    if not path.is_file():
        raise CheckpointError(f"weights {path} is not a file; a safetensors or torch file is needed. Check the path.")
    try:
        held = _read(path)
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
    return load_state(model, found.state, str(path)), f"{path} ({found})" if str(found) else str(path)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    with torch.serialization.safe_globals([Namespace]):  # mere data, which timm's checkpoints hold
        return torch.load(path, map_location="cpu", weights_only=True)


def load_state(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> list[str]:
    """Load strictly, but for a classifier of another size, or none; return the keys that stay new."""
    own = model.state_dict()
    head = classifier_keys(model)
    fresh = [key for key in head if key not in state or state[key].shape != own[key].shape]
    fresh = head if fresh else []
    # torch fills the counters in, as files from before them demand; nothing but momentum=None reads one.
    missing = sorted(k for k in own.keys() - state.keys() - set(fresh) if not k.endswith("num_batches_tracked"))
    foreign = sorted(state.keys() - own.keys())
    misfit = sorted(k for k in own.keys() & state.keys() - set(fresh) if own[k].shape != state[k].shape)
    for what, keys in (("lacks", missing), ("holds foreign", foreign), ("has in another shape", misfit)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(
                f"weights {origin} {what} {', '.join(keys[:3])}{more}; exactly the model's tensors are needed, "
                "a classifier apart. Check the model's name and model_kwargs."
            )
    whole = OrderedDict({**state, **{key: own[key] for key in fresh}})
    # torchvision's MNASNet asks for its version. Not those of all modules: without one, BatchNorm adds its counter.
    whole._metadata = {"": own._metadata[""]}  # type: ignore[attr-defined]
    model.load_state_dict(whole)
    return fresh
