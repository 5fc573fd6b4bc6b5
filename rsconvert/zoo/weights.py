"""Values for a plain model: a file loads strictly, a classifier apart."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import timm
from torch import Tensor, nn

from rsconvert.errors import CheckpointError
from rsconvert.zoo.building import first_line
from rsconvert.zoo.classifier import classifier_keys

__all__ = ["load_state", "load_weights"]


def load_weights(model: nn.Module, path: Path) -> list[str]:
    """Load a safetensors or torch file strictly, without pickle; return the classifier's keys if they stay new.

    Raises:
        CheckpointError: the file can't be read, or holds other tensors than the model.
    """
    if not path.is_file():
        raise CheckpointError(f"weights {path} is not a file; a safetensors or torch file is needed. Check the path.")
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as error:  # pickle, zip and safetensors errors share no base
        raise CheckpointError(
            f"weights {path} can't be read: {first_line(error)}; a safetensors file, or a torch file of "
            "tensors alone, is needed. Save the state_dict again."
        ) from error
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"weights {path} holds no state_dict; tensors by name are needed. Save model.state_dict()."
        )
    return load_state(model, state, str(path))


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
