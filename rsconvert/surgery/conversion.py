"""make_switchable: the facts of a model, the swap of its BatchNorms, the proof that nothing else changed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from rsconvert.errors import ConfigError, ResolutionError, UnsupportedModelError
from rsconvert.models import (
    Source,
    Task,
    check_num_classes,
    chosen_task,
    count_outputs,
    is_file_name,
    source_of,
)
from rsconvert.surgery.adoption import adopted
from rsconvert.surgery.convertible import check_convertible
from rsconvert.surgery.heads import Private, head_tensors, private_parts
from rsconvert.surgery.network import Build, SwitchableModel, assemble, check_resolutions
from rsconvert.surgery.proof import prove
from rsconvert.surgery.report import ConversionReport, make_report
from rsconvert.surgery.survey import Example, Survey, arguments_of, survey, working_resolutions

_MISFIT = "built for another resolution"

__all__ = ["check_switchable", "examine", "make_switchable"]


@torch.inference_mode(False)
def make_switchable(
    model: nn.Module,
    resolutions: Sequence[int] = (224, 192, 160, 128, 96),
    *,
    name: str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    task: Task | str | Mapping[str, Any] | None = None,
    private: Private = True,
    large_head: bool = False,
    build: Build | None = None,
    example: Example | None = None,
    image: int | str | None = None,
) -> SwitchableModel:
    """Return a network with one private BN set per resolution, all equal to the model's; see ``net.report``.

    The model stays unchanged and shares no tensor with the network. Each path is proved equal to the model, bit for bit
    in eval mode, on scrambled BN tensors. A model that does not take every size is built again for each of them around
    the same tensors; its position tables are private then, resampled by timm's own functions.

    Args:
        resolutions: in pixels, in any order.
        name: what ``rsconvert.load`` builds the model from; known already for a model from ``create_model``.
        model_kwargs: the arguments that the builder of that name needs.
        task: a ``Task``, its name, or some of its values; the rest is recognised, or that of a classification.
        private: what each resolution has of its own, of ``("bn", "head")``: BatchNorm, the classifier's layers. True is
            ``("bn",)``; False keeps all shared (RS-Nets, Fig. 4 left).
        large_head: accept private classifiers that add more than a tenth to the model's parameters.
        build: a function of the resolution that makes the model for it; needed if one model does not take every size,
            unless the named builder takes ``img_size`` or ``dynamic_img_size``. Only position tables may differ.
        example: a function of the resolution that returns the arguments of ``forward``, a tuple or a dict by keyword;
            needed if they are not images (N, C, H, W). What changes with the resolution is an image.
        image: whose size chooses the path, by name (``batch.image`` in a dict) or position; None takes that of all.
    Raises:
        ResolutionError: a resolution is malformed, repeated, or does not work in the model.
        UnsupportedModelError: the model holds no BatchNorm or what can't be converted, or has no logits of its task.
        ConfigError: ``model_kwargs`` comes without a ``name``, an argument is malformed, or the classifier is large.
    """
    resolutions = check_resolutions(resolutions)
    source, notes = _origin(model, _named(model, name, model_kwargs), task)
    start = time.perf_counter()
    bn, heads = _private(model, source, resolutions, private, large_head)
    found = survey(model, source, resolutions, private=bn, heads=heads, build=build, example=example, image=image)
    _check_all_work(model, source, found)
    others = (*(found.functional if bn else ()), *heads)
    net = assemble(model, resolutions, private=bn, build=found.build, built=found.built, others=others)
    net.source = replace(_with_outputs(source, found), built_with=found.way, images=found.images).for_its_images()
    _check_exact(model, exact := prove(found, net))
    parameters = sum(p.numel() for p in net.parameters() if p is not net.alpha)
    net.report = replace(make_report(model, found, start), exact=exact, parameters=parameters, notes=notes)
    return net


def examine(
    model: nn.Module, resolutions: Sequence[int] = (224, 192, 160, 128, 96), *, image: int | str | None = None
) -> ConversionReport:
    """Report what ``make_switchable`` would find, without a conversion: every BatchNorm, and which resolutions work.

    It raises the same errors, except for a resolution that does not work.
    """
    start = time.perf_counter()
    found = survey(model, source_of(model), check_resolutions(resolutions), image=image)
    return make_report(model, found, start)


def check_switchable(
    model: nn.Module, resolutions: Sequence[int], private: Private = True, large_head: bool = False
) -> None:
    """Raise what ``make_switchable`` would raise for a model whatever its values are, before a download of them."""
    resolutions, source = check_resolutions(resolutions), source_of(model)
    check_convertible(model, source)
    _private(model, source, resolutions, private, large_head)
    if len(working_resolutions(Survey(arguments_of(model)), model, resolutions)) < len(resolutions):
        _check_all_work(model, source, survey(model, source, resolutions))


def _origin(
    model: nn.Module, source: Source, task: Task | str | Mapping[str, Any] | None
) -> tuple[Source, tuple[str, ...]]:
    """Return what is known of a model, with its task, and a line on each fact that it shows itself."""
    known, notes = adopted(model, source)
    return replace(known, task=chosen_task(model, known.task, task)), notes


def _with_outputs(source: Source, found: Survey) -> Source:
    """Return the source of a segmentation network with its number of classes, as its logits show it."""
    if not source.task.dense:
        return source
    logits = source.task.logits(next(iter(found.trials.values())).output)
    return replace(source, num_classes=int(logits.shape[1]))


def _private(
    model: nn.Module, source: Source, resolutions: Sequence[int], private: Private, large_head: bool
) -> tuple[bool, tuple[str, ...]]:
    """Return whether each resolution has a BN set, and the names of the tensors of private classifiers."""
    parts = private_parts(private, large_head)
    if "head" not in parts:
        return "bn" in parts, ()
    check_convertible(model, source)
    return "bn" in parts, head_tensors(model, source, resolutions, large_head)


def _check_exact(model: nn.Module, exact: Mapping[int, bool]) -> None:
    if different := [r for r, same in exact.items() if not same]:
        raise UnsupportedModelError(
            f"{type(model).__name__} computes other values after conversion at {different}; equal bits are needed. "
            "Check that its forward depends on nothing but its input and tensors; otherwise please report it."
        )


def _check_all_work(model: nn.Module, source: Source, found: Survey) -> None:
    """Name what fails and why, and what works: of the resolutions, of the model's own sizes, and of multiples of 32."""
    if not found.refused:
        return
    own = getattr(model, "pretrained_cfg", None) or {}
    sizes = {own[key][-1] for key in ("input_size", "test_input_size") if own.get(key)}
    others = working_resolutions(found, model, ({*sizes, *range(32, 513, 32)} - found.trials.keys()))
    works = sorted({*others, *(found.trials.keys() - found.refused.keys())}, reverse=True)
    resolution, reason = next(iter(found.refused.items()))
    refused, working = (", ".join(map(str, sides)) for sides in (found.refused, works))
    remedy = "Choose among these" if works else "Give it images that it takes by example="
    if source.architecture is None:
        remedy += ", or pass build=, a function of the resolution that returns the model for it"
    elif is_file_name(source.architecture):
        remedy += ", or let the function take img_size"
    # A builder that takes no such argument says nothing about the model.
    misfits = [f" Built by {way}: {why.rstrip('. ')}." for way, why in found.attempts.items() if _MISFIT in why]
    raise ResolutionError(
        f"{source.architecture or type(model).__name__} does not work at {refused}: at {resolution} "
        f"{reason.rstrip('. ')}; of the sizes tried it works at {working or 'none'}. {remedy}." + "".join(misfits)
    )


def _named(model: nn.Module, name: str | None, model_kwargs: Mapping[str, Any] | None) -> Source:
    """Return the model's source under the caller's name, if there is one."""
    source = source_of(model)
    if name is None:
        if model_kwargs:
            raise ConfigError(
                f"model_kwargs has {', '.join(model_kwargs)} without a name; they are the arguments of the builder "
                "of that name. Give name too."
            )
        return source
    kwargs = dict(model_kwargs or {})
    check_num_classes(kwargs.get("num_classes"))
    outputs = count_outputs(model)
    if not is_file_name(name):
        outputs = kwargs.pop("num_classes", outputs)
    return replace(source, architecture=name, model_kwargs=kwargs, num_classes=outputs)
