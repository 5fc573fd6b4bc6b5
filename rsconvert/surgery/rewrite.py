"""make_switchable: the facts of a model, the swap of its BatchNorms, the proof that nothing else changed."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from rsconvert.errors import ConfigError, UnsupportedModelError
from rsconvert.surgery.bn import SwitchableBN, batchnorms
from rsconvert.surgery.building import check_num_classes, first_line
from rsconvert.surgery.classifier import count_outputs
from rsconvert.surgery.graph import read_graph
from rsconvert.surgery.network import SwitchableModel, check_resolutions
from rsconvert.surgery.proof import prove
from rsconvert.surgery.report import make_report
from rsconvert.surgery.source import Source, source_of
from rsconvert.surgery.zoo import is_file_name

__all__ = ["assemble", "make_switchable"]


def make_switchable(
    model: nn.Module,
    resolutions: Sequence[int] = (224, 192, 160, 128, 96),
    *,
    name: str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    private: bool = True,
) -> SwitchableModel:
    """Return a network with one private BN set per resolution, all equal to the model's; ``net.report`` tells all.

    The model stays unchanged and shares no tensor with the network. Each path is proved equal to the model,
    bit for bit in eval mode, on scrambled BatchNorm tensors.

    Args:
        resolutions: in pixels, in any order.
        name: what ``rsconvert.load`` builds the model from; known already for a model from ``create_model``.
        model_kwargs: the arguments that the builder of that name needs.
        private: False keeps one BN set for all resolutions (RS-Nets, Fig. 4 left).
    Raises:
        ResolutionError: a resolution is malformed, repeated, or does not work in the model.
        UnsupportedModelError: the model holds no BatchNorm, something that can't be converted, or a path differs.
        ConfigError: ``model_kwargs`` comes without a ``name``, or holds a malformed ``num_classes``.
    """
    resolutions = check_resolutions(resolutions)
    source = _named(model, name, model_kwargs)
    _check_convertible(model, source.architecture or type(model).__name__)
    net = assemble(model, resolutions, private=private)
    net.source = source
    exact, executed = prove(model, net)
    if different := [r for r, same in exact.items() if not same]:
        raise UnsupportedModelError(
            f"{type(model).__name__} computes other values after conversion at {different}; equal bits are needed. "
            "Check that its forward depends on nothing but its input and tensors; otherwise please report it."
        )
    parameters = sum(p.numel() for p in net.parameters() if p is not net.alpha)
    net.report = make_report(model, parameters, read_graph(model), executed, exact)
    return net


def assemble(model: nn.Module, resolutions: Sequence[int], *, private: bool = True) -> SwitchableModel:
    """Swap and share without a proof; ``rsconvert.load`` fills such a network.

    Raises:
        UnsupportedModelError: the model can't be copied.
    """
    swaps = {id(bn): SwitchableBN(bn, resolutions) for bn in batchnorms(model).values()} if private else {}
    try:
        # deepcopy finds every reference to a BatchNorm: two names, plain lists, bound methods.
        skeleton = copy.deepcopy(model, dict(swaps))
    except (RuntimeError, TypeError) as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} can't be copied ({first_line(error)}); a model that "
            "copy.deepcopy takes is needed. Remove computed tensors and open handles from its attributes."
        ) from error
    return SwitchableModel(skeleton, resolutions, source_of(model))


def _named(model: nn.Module, name: str | None, model_kwargs: Mapping[str, Any] | None) -> Source:
    """Return the model's source under the caller's name, if there is one."""
    if name is None and model_kwargs:
        raise ConfigError(
            f"model_kwargs has {', '.join(model_kwargs)} without a name; they are the arguments of the builder "
            "that name tells. Give name too."
        )
    if name is None:
        return source_of(model)
    kwargs = dict(model_kwargs or {})
    check_num_classes(kwargs.get("num_classes"))
    outputs = count_outputs(model)
    if not is_file_name(name):
        outputs = kwargs.pop("num_classes", outputs)
    return replace(source_of(model), architecture=name, model_kwargs=kwargs, num_classes=outputs)


def _check_convertible(model: nn.Module, name: str) -> None:
    """Refuse what has no sets to make, or holds a state that is no tensor."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    if lazy := next((key for key, tensor in tensors if is_lazy(tensor)), None):
        raise UnsupportedModelError(
            f"{name} has the lazy tensor {lazy}; tensors of known shapes are needed. "
            "Run the model once on an example input, then convert it."
        )
    for key, module in model.named_modules():
        if isinstance(module, (SwitchableModel, SwitchableBN)):
            raise UnsupportedModelError(
                f"{name} is switchable already; a plain model is needed. Take one path: net.extract(resolution)."
            )
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise UnsupportedModelError(
                f"{key or name} ({type(module).__name__}) keeps an extra state, which paths can't share; "
                "parameters and buffers alone are accepted. Register the state as a buffer."
            )
    _check_names(model, name)
    if not batchnorms(model):
        raise UnsupportedModelError(
            f"{name} has no BatchNorm to convert; a network with BatchNorm layers is needed. Choose another model."
        )


def _check_names(model: nn.Module, name: str) -> None:
    """Refuse the names that the conversion gives to its own tensors: one of two would be lost."""
    taken = [f"{key}.at" if key else "at" for key, bn in batchnorms(model).items() if hasattr(bn, "at")]
    if hasattr(model, "rsconvert"):
        taken.append("rsconvert")
    if taken:
        raise UnsupportedModelError(
            f"{name} has an attribute {taken[0]}; rsconvert at the root, and at in a BatchNorm, are names of the "
            "switchable network. Rename it."
        )
