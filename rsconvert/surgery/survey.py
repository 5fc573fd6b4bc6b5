"""The survey: at which resolutions a model runs, as it is or built again for each of them."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from rsconvert.errors import ConfigError, RSConvertError, UnsupportedModelError
from rsconvert.models import Arguments, ImageArgument, Source, Stem, example_arguments, example_stem
from rsconvert.surgery.convertible import check_convertible, check_functional
from rsconvert.surgery.network import (
    Build,
    build_like,
    builders,
    check_image,
    copy_model,
    copy_structure,
    find_images,
    on_meta,
    size_dependent,
)
from rsconvert.surgery.trial import (
    Trial,
    equal_outputs,
    fill_zeros,
    run_trial,
    scrambled,
    scrambled_tensors,
    tensors,
    write,
)

__all__ = ["Example", "Survey", "arguments_of", "survey", "working_resolutions"]

Example = Callable[[int], Arguments]


@dataclass
class Survey:
    """A trial of the source at each resolution, on scrambled tensors.

    ``built`` holds the models that were built again in the way of ``way``, empty if one takes all sizes; ``functional``
    the tensors handed to F.batch_norm and their parts, ``heads`` those of private classifiers; ``values`` what was
    written for each trial, in BatchNorms the same for all unless ``private``; ``images`` the arguments whose size
    chooses the path; ``attempts`` why other ways to build the model were dropped; ``seconds`` the time of the trials
    and of the proof.
    """

    example: Example
    way: str | None = None
    build: Build | None = None
    built: dict[int, nn.Module] = field(default_factory=dict)
    trials: dict[int, Trial] = field(default_factory=dict)
    values: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    functional: dict[str, str] = field(default_factory=dict)
    heads: tuple[str, ...] = ()
    private: bool = True
    images: tuple[ImageArgument, ...] = ()
    attempts: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def refused(self) -> dict[int, str]:
        """The resolutions that do not work, each with the reason."""
        return {r: trial.failure for r, trial in self.trials.items() if trial.failure is not None}

    @cached_property
    def tables(self) -> tuple[str, ...]:
        """The position tables that change shape with the resolution, once all trials are over."""
        found = size_dependent(self.built) if self.built else {}
        return tuple(f"{owner}.{name}".lstrip(".") for owner, names in found.items() for name in names)

    def model_for(self, model: nn.Module, resolution: int) -> nn.Module:
        """Return the model that runs at a resolution: itself, or built again around its tensors."""
        return model if self.build is None else build_like(self.build, model, resolution)


def survey(
    model: nn.Module,
    source: Source,
    resolutions: Sequence[int],
    *,
    private: bool = True,
    heads: tuple[str, ...] = (),
    build: Build | None = None,
    example: Example | None = None,
    image: int | str | None = None,
) -> Survey:
    """Try a model at each resolution; where it fails, or a builder is given, try it built again for each of them.

    The arguments are those of ``make_switchable``; ``private`` says whether each resolution has a BN set, and ``heads``
    names the tensors of private classifiers.

    Raises:
        ConfigError: ``build`` or ``example`` is no function, or shows no such image.
        UnsupportedModelError: the model holds no BatchNorm, something that can't be converted, or is built again with
            another arithmetic.
    """
    for argument, function in (("build", build), ("example", example)):
        if function is not None and not callable(function):
            raise ConfigError(
                f"{argument} is {type(function).__name__}; a function of the resolution is needed. Write lambda r: …"
            )
    check_image(model, image)
    check_convertible(model, source)
    given = _steady(example or arguments_of(model, image))
    best = as_it_is = _tried(model, resolutions, Survey(given, private=private, heads=heads))
    if best.refused or build is not None:
        best = _built_best(model, source, best, build)
        _check_same(model, as_it_is, best)
    if not best.refused or best.functional:
        check_functional(model, source, best.functional)
    if not best.refused:
        shown = {r: given(r) for r in resolutions}
        best.images = find_images(model, shown, given=example is not None, image=image)
    return best


def _built_best(model: nn.Module, source: Source, best: Survey, build: Build | None) -> Survey:
    """Return the best survey of a model built again, or the one of the model as it is."""
    given, resolutions = best.example, tuple(best.trials)
    for way, function in builders(source, build):
        other = _tried(model, resolutions, Survey(given, way, function, private=best.private, heads=best.heads))
        if _rank(other) < _rank(best) or build is not None:
            best, other = other, best
        best.attempts |= other.attempts
        if other.way and other.refused:
            best.attempts[other.way] = next(iter(other.refused.values()))
        if not best.refused and not best.tables:
            break
    return best


def _rank(found: Survey) -> tuple[int, int]:
    """Order surveys: fewer refusals first, then fewer tables."""
    return len(found.refused), len(found.tables)


def arguments_of(model: nn.Module, image: int | str | None = None) -> Example:
    """Return the function that reads the arguments of ``forward`` from a model; ``image`` gets an image too."""
    stems: list[Stem] = []  # one for all resolutions, read from a copy: a forward may count its calls

    def arguments(resolution: int) -> Arguments:
        if not stems:
            stems.append(example_stem(copy_structure(model), resolution, image=image))
        return example_arguments(model, resolution, image=image, stem=stems[0])

    return arguments


def working_resolutions(found: Survey, model: nn.Module, candidates: Iterable[int]) -> list[int]:
    """Return the candidates that a model takes in the way that its survey chose, from the largest.

    Only shapes are computed: these are proposals, which a survey or a conversion tries on real tensors.
    """
    works = []
    for resolution in sorted(set(candidates), reverse=True):
        with suppress(RSConvertError), torch.no_grad():
            reference = on_meta(found.model_for(model, resolution)).eval()
            arguments = tree_map_only(Tensor, lambda t: t.to("meta"), found.example(resolution))
            works += [resolution] if run_trial(reference, arguments, resolution).failure is None else []
    return works


def _steady(example: Example) -> Example:
    """Return the same arguments for a resolution at each call, whatever ``example`` draws or ``forward`` overwrites."""
    drawn = cache(example)

    def arguments(resolution: int) -> Arguments:
        given: object = drawn(resolution)
        if not isinstance(given, tuple | dict):
            raise ConfigError(
                f"example returned {type(given).__name__} for {resolution}; a tuple of the arguments of "
                "forward is needed, or a dict of keyword arguments. Write (x,) for one."
            )
        return cast(Arguments, tree_map_only(Tensor, Tensor.clone, given))

    return arguments


def _check_same(model: nn.Module, as_it_is: Survey, best: Survey) -> None:
    """Refuse a builder of another arithmetic: where the model itself runs, over the same tensors, both must agree."""
    for resolution, built in best.built.items():
        own, other = as_it_is.trials[resolution], best.trials[resolution]
        shared = {id(p) for p in model.parameters()} == {id(p) for p in built.parameters()}
        comparable = shared and own.failure is None and other.failure is None
        if comparable and not equal_outputs(own.output, other.output):
            raise UnsupportedModelError(
                f"{type(model).__name__} built again for {resolution} by {best.way} computes something else than the "
                "model that was given; the same model is needed. Correct name, model_kwargs or build, and remove hooks."
            )


def _tried(model: nn.Module, resolutions: Sequence[int], found: Survey) -> Survey:
    """Return the survey with a trial of each resolution."""
    for resolution in resolutions:
        try:
            own = found.model_for(model, resolution)
        except UnsupportedModelError as error:  # this way builds the model for no resolution
            found.trials = {r: Trial(failure=str(error)) for r in resolutions}
            break
        except RSConvertError as error:
            found.trials[resolution] = Trial(failure=str(error))
            continue
        if found.build is not None:
            found.built[resolution] = own
        _try(found, own, resolution)
    return found


@torch.no_grad()
def _try(found: Survey, model: nn.Module, resolution: int) -> None:
    """Run a copy of a model with the values of a resolution; again if that shows further tensors to scramble."""
    start, known = time.perf_counter(), -1
    while known < len(found.functional):
        known = len(found.functional)
        values = {**fill_zeros(model), **scrambled(model, resolution if found.private else 0, found.functional)}
        values |= scrambled_tensors(model, resolution, dict.fromkeys(found.heads, "weight"))
        own = tensors(model)
        written = {id(own[name]) for name in values}
        # A copy that shares what is not written.
        reference = copy_model(model, {id(p): p for p in model.parameters() if id(p) not in written}).eval()
        write(reference, values)
        trial = run_trial(reference, found.example(resolution), resolution)
        found.values[resolution], found.trials[resolution] = values, trial
        found.functional |= trial.functional
    found.seconds += time.perf_counter() - start
