"""What a model must be to be converted: refused in one line if it can't be, before anything is tried."""

from collections.abc import Collection, Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import prune

from rsconvert.errors import UnsupportedModelError
from rsconvert.models import Source
from rsconvert.surgery.network import SwitchableLayer, SwitchableModel, batchnorms, holds_running_statistics

__all__ = ["check_convertible", "check_functional", "unconverted"]


def check_convertible(model: nn.Module, source: Source) -> None:
    """Refuse what has no sets to make, what can't be changed, a state that is no tensor, and names that would clash."""
    name = source.architecture or type(model).__name__
    # Of nn.Module, for a scripted model and a network have walks of their own.
    for key, module in nn.Module.named_modules(model):
        _check_module(module, key or name, name)
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise UnsupportedModelError(
                f"{name} has the lazy tensor {key}; tensors of known shapes are needed. "
                "Run the model once on an example input, then convert it."
            )
        if tensor.is_meta:
            raise UnsupportedModelError(
                f"{name} has {key} on the meta device, without values; a model with values is needed. "
                "Load its weights first."
            )
    for key, bn in batchnorms(model).items():
        if bn._forward_hooks or bn._forward_pre_hooks or bn._backward_hooks or bn._backward_pre_hooks:
            raise UnsupportedModelError(
                f"{key or name} has a hook, which may hold the whole model; a BatchNorm without hooks is needed. "
                "Remove it, or set it on net.at(resolution) afterwards."
            )
    taken = [f"{key}.at".lstrip(".") for key, bn in batchnorms(model).items() if hasattr(bn, "at")]
    if hasattr(model, "rsconvert") or taken:  # one of two tensors of a name would be lost
        raise UnsupportedModelError(
            f"{name} has an attribute {[*taken, 'rsconvert'][0]}; rsconvert at the root, and at in a BatchNorm, are "
            "names of the switchable network. Rename it."
        )
    # A module that calls F.batch_norm itself needs a vector of running statistics among its buffers.
    if not batchnorms(model) and not any(b.ndim == 1 and b.is_floating_point() for b in model.buffers()):
        raise _nothing_to_convert(model, source)


def _check_module(module: nn.Module, key: str, name: str) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedModelError(
            f"{key} is a {type(module).__name__} of torch.jit, whose code can't be changed; an nn.Module "
            "of Python is needed. Convert the model before it is scripted."
        )
    if any(isinstance(hook, prune.BasePruningMethod) for hook in module._forward_pre_hooks.values()):
        raise UnsupportedModelError(
            f"{key} is pruned, and computes a weight before each forward; plain parameters are needed. "
            "Call torch.nn.utils.prune.remove first, or prune the network afterwards."
        )
    if isinstance(module, (SwitchableModel, SwitchableLayer)):
        raise UnsupportedModelError(
            f"{name} is switchable already; a plain model is needed. Take one path: net.extract(resolution)."
        )
    if type(module).get_extra_state is not nn.Module.get_extra_state:
        raise UnsupportedModelError(
            f"{key} ({type(module).__name__}) keeps an extra state, which paths can't share; "
            "parameters and buffers alone are accepted. Register the state as a buffer."
        )


def check_functional(model: nn.Module, source: Source, functional: Collection[str]) -> None:
    """Refuse a model that normalizes nothing, or hands F.batch_norm tensors, ``functional``, that no file holds."""
    if not batchnorms(model) and not functional:
        raise _nothing_to_convert(model, source)
    for tensor in functional:
        owner, _, key = tensor.rpartition(".")
        if key in model.get_submodule(owner)._non_persistent_buffers_set:
            raise UnsupportedModelError(
                f"{tensor} serves F.batch_norm and is a buffer that no file holds; a persistent one is needed. "
                "Register it with persistent=True."
            )


def _nothing_to_convert(model: nn.Module, source: Source) -> UnsupportedModelError:
    alike = next(unconverted(model), None)
    found = f" ({alike} holds running statistics, but computes something else)" if alike else ""
    return UnsupportedModelError(
        f"{source.architecture or type(model).__name__} has no BatchNorm to convert{found}; a network with BatchNorm "
        "layers is needed. Choose another model."
    )


def unconverted(model: nn.Module, functional: Collection[str] = ()) -> Iterator[str]:
    """Yield the names of modules with running statistics that are neither a BatchNorm's nor in ``functional``."""
    known = {id(module) for bn in batchnorms(model).values() for module in nn.Module.modules(bn)}
    owners = {name.rpartition(".")[0] for name in functional}
    for name, module in model.named_modules():
        if id(module) not in known and name not in owners and holds_running_statistics(module):
            yield name or type(module).__name__
