"""Adoption: what a model that was made elsewhere shows of its origin, as far as it can be proved.

timm leaves ``pretrained_cfg`` on a model: its preprocessing and its architecture, but none of the arguments it was
built with. So a name counts only if the bare name builds the same model: the same classes, names and settings, and the
same bits of output around the same tensors.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from rsconvert.errors import ConfigError
from rsconvert.models import (
    Source,
    candidates_for,
    count_outputs,
    example_arguments,
    example_stem,
    preprocessing_of,
    smp_candidates,
    source_of,
    unfilled,
)
from rsconvert.surgery.network import copy_model
from rsconvert.surgery.trial import equal_outputs, fill_zeros, scrambled, write

__all__ = ["adopted"]

_PLAIN = (bool, int, float, str, type(None))
_MODES = {"training", "grad_checkpointing"}  # which a user sets, and no file holds
_SIZES = (32, 64, 128, 224)


def adopted(model: nn.Module, source: Source) -> tuple[Source, tuple[str, ...]]:
    """Return the source with what the model itself shows of it, and a line on each fact that was taken.

    A model from ``create_model`` knows its source, and a name that the caller gave wins.
    """
    if source_of(model) != Source():
        return source, ()
    notes = []
    if source.architecture is None and (found := _proved(model)) is not None:
        source = replace(found, preprocessing=source.preprocessing)
        kwargs = f" with {dict(source.model_kwargs)}" if source.model_kwargs else ""
        notes.append(f"architecture: {source.architecture}{kwargs}, which builds the same model: proved by its outputs")
    cfg = getattr(model, "pretrained_cfg", None)
    if isinstance(cfg, Mapping) and {"mean", "std"} <= cfg.keys():
        with suppress(ConfigError):  # such as that of an interpolation of no single kind
            own = preprocessing_of(cfg).for_channels(example_stem(model, max(_SIZES)).channels)
            source = replace(source, preprocessing=own)
            mean, std = (",".join(f"{value:g}" for value in values) for values in (own.mean, own.std))
            settings = f"mean {mean}, std {std}, {own.interpolation}, crop_pct {own.crop_pct}"
            notes.append(f"preprocessing: {settings}, from the model's pretrained_cfg")
    return source, tuple(notes)


def _proved(model: nn.Module) -> Source | None:
    """Return the first candidate that builds the same model."""
    if any(tensor.is_meta or is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # builders of torchvision announce later defaults
        for source, build in _candidates(model):
            with suppress(Exception):  # whatever a builder raises
                with unfilled():
                    built = build()
                if _is_same(model, built):
                    return source
    return None


def _candidates(model: nn.Module) -> Iterator[tuple[Source, Callable[[], nn.Module]]]:
    """Yield what may have made a model of a known library, and how to build it; nothing for another model."""
    library = type(model).__module__.partition(".")[0]
    if library == "timm":
        cfg = getattr(model, "pretrained_cfg", None) or {}
        name, tag = cfg.get("architecture"), cfg.get("tag")
        if isinstance(name, str) and timm.is_model(name):
            source = Source(architecture=f"{name}.{tag}" if tag else name, num_classes=count_outputs(model))
            arguments = {} if source.num_classes is None else {"num_classes": source.num_classes}
            yield source, partial(timm.create_model, source.architecture, **arguments)
    elif library == "torchvision":
        yield from candidates_for(model)
    elif library == "segmentation_models_pytorch":
        yield from smp_candidates(model)


def _is_same(model: nn.Module, built: nn.Module) -> bool:
    """Return whether two models have the same settings, and compute the same around the same scrambled tensors."""
    theirs, own = dict(model.named_modules()), dict(built.named_modules())
    if theirs.keys() != own.keys() or any(type(theirs[name]) is not type(module) for name, module in own.items()):
        return False
    if not all(_settings(module).items() <= _settings(theirs[name]).items() for name, module in own.items()):
        return False
    plain = copy_model(model).eval()
    write(plain, scrambled(plain, 0) | fill_zeros(plain))
    like = next(p for p in plain.parameters() if p.is_floating_point())
    try:
        built.to(like.device, like.dtype).load_state_dict(plain.state_dict(), assign=True)
    except RuntimeError:  # other names or shapes
        return False
    return _computes_as(plain, built.eval())


def _settings(module: nn.Module) -> dict[str, Any]:
    """Return the plain values among a module's attributes, dropout rates among them."""
    return {
        name: value
        for name, value in vars(module).items()
        if name[0] != "_" and name not in _MODES and all(isinstance(item, _PLAIN) for item in _items(value))
    }


def _items(value: object) -> Iterable[object]:
    return value if isinstance(value, (tuple, list)) else [value]


@torch.no_grad()
def _computes_as(plain: nn.Module, built: nn.Module) -> bool:
    """Compare the outputs at the first size that works; they must hold a finite number."""
    for side in _SIZES:
        with suppress(Exception):  # whatever the model's own code raises
            given = example_arguments(plain, side)
            wanted = plain(*given)
            finite = any(leaf.isfinite().any() for leaf in tree_leaves(wanted) if isinstance(leaf, Tensor))
            return finite and equal_outputs(wanted, built(*given))
    return False
