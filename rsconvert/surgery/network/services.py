"""What a switchable network offers of its source beside forward: facts, dispatch on an image, modes of all paths."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

__all__ = ["service"]

# Methods of timm's models, by what they touch.
_TAKE_AN_IMAGE = frozenset({"forward_features", "forward_intermediates", "get_intermediate_layers"})
_TELL = frozenset({"get_classifier", "group_matcher", "no_weight_decay", "no_weight_decay_keywords"})
_SET_A_MODE = frozenset({"set_distilled_training", "set_grad_checkpointing"})


def service(
    name: str, paths: Mapping[int, nn.Module], choose: Callable[[Sequence[Any], Mapping[str, Any]], nn.Module]
) -> Any:
    """Return what a switchable network offers of its source under a name that it has not got itself.

    Data, and methods that tell facts, are those of the native path. A method that takes an image runs on the path that
    fits it, one that sets a mode on every path. Nothing else is offered: a path has it.

    Args:
        paths: the live ones by resolution in pixels, the native one first; empty in a network half unpickled.
        choose: from the positional and the keyword arguments of a call to the path that fits the image among them.
    Raises:
        AttributeError: the source has no such attribute, or it belongs to one path alone.
    """
    native = next(iter(paths.values()), None)
    # deepcopy, pickle and DistributedDataParallel ask for names of this kind, of the network itself.
    if native is None or name.startswith("_") or not hasattr(native, name):
        raise AttributeError(f"'SwitchableModel' object has no attribute '{name}'")
    value = getattr(native, name)
    if name in _TELL or _is_data(value):
        return value
    if name in _TAKE_AN_IMAGE:
        return _dispatching(name, value, choose)
    if name in _SET_A_MODE:
        return _on_every(name, value, paths)
    raise AttributeError(_refusal(name, value))


def _is_data(value: Any) -> bool:
    return not callable(value) and not any(isinstance(leaf, (nn.Module, Tensor)) for leaf in tree_leaves(value))


def _dispatching(
    name: str, method: Callable[..., Any], choose: Callable[[Sequence[Any], Mapping[str, Any]], nn.Module]
) -> Callable[..., Any]:
    @functools.wraps(method)
    def dispatch(*args: Any, **kwargs: Any) -> Any:
        return getattr(choose(args, kwargs), name)(*args, **kwargs)

    return dispatch


def _on_every(name: str, method: Callable[..., Any], paths: Mapping[int, nn.Module]) -> Callable[..., None]:
    @functools.wraps(method)
    def apply(*args: Any, **kwargs: Any) -> None:
        for path in paths.values():
            getattr(path, name)(*args, **kwargs)

    return apply


def _refusal(name: str, value: Any) -> str:
    if name == "forward_head":
        return (
            "forward_head takes features, which do not tell their resolution; a switchable network needs an image to "
            "choose a path. Call net.at(resolution).forward_head(…)."
        )
    if not callable(value) or isinstance(value, nn.Module):
        return (
            f"{name} holds modules or tensors of one path; a switchable network offers data alone. "
            f"Read net.at(resolution).{name}."
        )
    return (
        f"{name} is a method of one path; a switchable network offers those that take an image, tell facts or set a "
        f"mode. Call net.at(resolution).{name}(…), or net.extract(resolution).{name}(…) if it changes modules."
    )
