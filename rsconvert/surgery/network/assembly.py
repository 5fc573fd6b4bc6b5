"""Networks put together from plain models: the swap itself, other values of a network, another classifier."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.models import check_num_classes, classifier_layers, replace_classifier, source_of
from rsconvert.surgery.network.copying import copy_model
from rsconvert.surgery.network.layer import SwitchableBN, SwitchableHead, SwitchableLayer
from rsconvert.surgery.network.private import by_owner, is_head, private_sets, size_dependent
from rsconvert.surgery.network.rebuilding import Build, build_with_classifier
from rsconvert.surgery.network.recognition import batchnorms
from rsconvert.surgery.network.switchable import SwitchableModel

__all__ = ["assemble", "regroup", "with_classifier"]


def assemble(
    model: nn.Module,
    resolutions: Sequence[int],
    *,
    private: bool = True,
    build: Build | None = None,
    built: Mapping[int, nn.Module] | None = None,
    others: Collection[str] = (),
) -> SwitchableModel:
    """Swap and share without a proof; ``rsconvert.load`` fills such a network.

    Args:
        build: makes the source again for a resolution; None if one model takes all sizes.
        built: resolution → what ``build`` gives, around the tensors of ``model``.
        others: names of further private tensors, such as those of the classifier, or those that modules hand to
            F.batch_norm themselves.
    Raises:
        UnsupportedModelError: the model can't be copied.
    """
    trees = built or dict.fromkeys(resolutions, model)
    base = trees[resolutions[0]]
    bns = batchnorms(base) if private else {}
    if "" in bns:
        raise UnsupportedModelError(
            f"the model is a {type(base).__name__} itself; a model with BatchNorms inside is needed. "
            "Put it into an nn.Sequential."
        )
    layers: dict[int, SwitchableLayer] = {id(bn): SwitchableBN(bn, resolutions) for bn in bns.values()}
    named = by_owner(base, others)
    heads = [owner for owner, names in named.items() if is_head(base.get_submodule(owner), names)]
    layers |= {id(head): SwitchableHead(head, resolutions) for head in map(base.get_submodule, heads)}
    # A deepcopy finds every reference to a layer: two names, plain lists, bound methods.
    native = copy_model(base, {key: layer.native for key, layer in layers.items()})
    owners = size_dependent(built) if built else {}
    for owner, names in named.items():
        if owner not in heads:
            owners[owner] = sorted({*owners.get(owner, []), *names})
    sets = private_sets(owners, trees, resolutions[0])
    owned = {id(layer.native): layer for layer in layers.values()}
    return SwitchableModel(native, owned, sets, resolutions, source_of(model), build, built, private)


def regroup(
    net: SwitchableModel, paths: Mapping[int, nn.Module], others: Collection[str] | None = None
) -> SwitchableModel:
    """Return an independent network of other plain models, from the largest to the smallest, made as ``net`` was.

    Args:
        others: names of their private tensors that no BatchNorm owns; by default those of ``net``.
    """
    built, one = paths if net.build else None, next(iter(paths.values()))
    others = net.other_private_tensors() if others is None else others
    new = assemble(one, tuple(paths), private=net.private, build=net.build, built=built, others=others)
    for place, (resolution, plain) in enumerate(paths.items()):
        new.at(resolution).load_state_dict(plain.state_dict())
        for name, layer in new.switchable_layers():
            _take_settings(layer.sets[place], plain.get_submodule(name))
    if net.restructured:
        new.__dict__["_made"] = None
    return new


def with_classifier(net: SwitchableModel, num_classes: int) -> SwitchableModel:
    """Return an independent network with a new classifier, which is zero, made by the source's own method.

    Args:
        num_classes: 0 leaves it without a classifier.
    Raises:
        AttributeError: the source has no such method.
        ConfigError: ``num_classes`` is negative or no whole number.
    """
    check_num_classes(num_classes)
    paths = {resolution: net.extract(resolution) for resolution in net.resolutions}
    for plain in paths.values():
        keys = replace_classifier(plain, num_classes)
    heads = dict(net.switchable_heads())
    others = [name for name in net.other_private_tensors() if name.rpartition(".")[0] not in heads]
    layers = classifier_layers(plain, net.source.task).items() if heads else ()
    others += [f"{name}.{key}" for name, layer in layers for key, _ in layer.named_parameters()]
    new = regroup(net, paths, others)
    new.alpha.data.copy_(net.alpha)
    source = replace(net.source, num_classes=num_classes, new_classifier=tuple(keys), class_names=None)
    kwargs = {k: num_classes if k == "num_classes" else value for k, value in source.model_kwargs.items()}
    new.source = replace(source, model_kwargs=kwargs)
    if net.build is not None:
        new.build = partial(build_with_classifier, net.build, num_classes)
    return new


def _take_settings(own: nn.Module, other: nn.Module) -> None:
    """Give a set the mode, the momentum and what learns of another one."""
    own.train(other.training)
    if hasattr(own, "momentum"):
        own.momentum = getattr(other, "momentum", own.momentum)
    learning = {name: parameter.requires_grad for name, parameter in other.named_parameters()}
    for name, parameter in own.named_parameters():
        parameter.requires_grad_(learning.get(name, parameter.requires_grad))
