"""Private classifiers: which layers of a model they are, and what they cost, before it is converted."""

from collections.abc import Collection

from torch import nn

from rsconvert.errors import ConfigError, UnsupportedModelError
from rsconvert.models import Source, classifier_layers
from rsconvert.surgery.network import is_head

__all__ = ["Private", "head_tensors", "private_parts"]

Private = bool | Collection[str]
_PARTS = ("bn", "head")
# The share of a model's parameters that private classifiers may add without being told so.
_LARGE = 0.1


def private_parts(private: Private, large_head: bool) -> tuple[str, ...]:
    """Return what each resolution has of its own: ``bn``, ``head``, both or nothing.

    Raises:
        ConfigError: another part is named, or ``large_head`` is set without ``head``.
    """
    given = (private,) if isinstance(private, str) else private
    parts = ("bn",) * given if isinstance(given, bool) else tuple(given)
    if unknown := [part for part in parts if part not in _PARTS]:
        raise ConfigError(
            f"private names {unknown[0]!r}; {' and '.join(_PARTS)} are accepted. Write bn,head in a command, "
            '("bn", "head") in Python.'
        )
    if large_head and "head" not in parts:
        raise ConfigError("large_head has no effect, because the classifier is shared. Add head to private.")
    return parts


def head_tensors(model: nn.Module, source: Source, resolutions: Collection[int], large_head: bool) -> tuple[str, ...]:
    """Return the names of the classifier's tensors, all of which become private.

    Args:
        large_head: whether they may add more than a tenth to the model's parameters.
    Raises:
        UnsupportedModelError: the model has no linear or convolutional classifier, or one that can't have copies.
        ConfigError: they would add too much.
    """
    name, layers = source.architecture or type(model).__name__, classifier_layers(model, source.task)
    if not layers:
        raise UnsupportedModelError(
            f"{name} has no classifier to make private; a linear or convolutional layer that gives logits (N, C) is "
            "needed. Leave head out of private."
        )
    for key, layer in layers.items():
        if reason := _unfit(model, layer):
            raise UnsupportedModelError(
                f"{key} of {name} {reason}; a plain linear or convolutional layer can be private. "
                "Leave head out of private."
            )
    added = (len(resolutions) - 1) * sum(p.numel() for layer in layers.values() for p in layer.parameters())
    total = sum(p.numel() for p in model.parameters())
    if added > _LARGE * total and not large_head:
        raise ConfigError(
            f"{len(resolutions) - 1} more classifiers ({', '.join(layers)}) would add {added:,} parameters to the "
            f"{total:,} of {name}; up to {_LARGE:.0%} is accepted. Set large_head, or leave head out of private."
        )
    return tuple(f"{key}.{tensor}" for key, layer in layers.items() for tensor, _ in layer.named_parameters())


def _unfit(model: nn.Module, layer: nn.Module) -> str | None:
    """Return why a layer can't have a copy for each resolution."""
    if not is_head(layer, dict(layer.named_parameters())):
        return "holds other modules or buffers"
    if hasattr(layer, "at"):
        return "has an attribute at, the name of its sets"
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return "has a hook, which may hold the whole model"
    own = {id(parameter) for parameter in layer.parameters()}
    others = (module for module in nn.Module.modules(model) if module is not layer)
    tied = any(id(tensor) in own for module in others for tensor in module._parameters.values())
    return "shares its tensors with another layer" if tied else None
