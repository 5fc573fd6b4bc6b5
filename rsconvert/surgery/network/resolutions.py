"""Resolutions: lists of them, and the one that the images of a call have.

Which arguments of ``forward`` are images is found in the examples of a model, and read again from every call.
"""

import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from rsconvert.errors import ConfigError, ResolutionError
from rsconvert.models import (
    Arguments,
    ImageArgument,
    argument_names,
    as_call,
    positional_names,
    receivers,
    resizes_inside,
    static_stem,
)

__all__ = [
    "check_image",
    "check_resolutions",
    "check_stages",
    "default_images",
    "doubt",
    "find_images",
    "run_views",
    "side_of",
    "side_of_call",
    "with_middles",
]

_Keys = tuple[str, ...]
_CLIPS = "torchvision.models.video"
_BY_IMAGE = "Choose the path yourself: net.at(resolution)(…); or convert with image=, the argument's name or position"
_BY_LAYOUT = f"{_BY_IMAGE}, or with example=, which shows how images lie."


def check_resolutions(resolutions: Sequence[int], name: str = "resolutions", needs: str = "BN set") -> tuple[int, ...]:
    """Return the resolutions in pixels from the largest to the smallest.

    Args:
        name, needs: what the list is called, and what each of it needs, for the errors.

    Raises:
        ResolutionError: it is no list, is empty, or holds a repeat or something that is not a positive whole number.
    """
    if not isinstance(resolutions, Iterable):
        raise ResolutionError(
            f"{name} is {resolutions!r}; a list of numbers of pixels is needed. Write [{resolutions}]."
        )
    given = list(resolutions)
    text = ",".join(map(str, given))
    if not given:
        raise ResolutionError(
            f"{name} is empty; at least one number of pixels is needed. Name some, such as 224,160,96."
        )
    for r in given:
        if not _is_positive(r):
            raise ResolutionError(f"{name} has {r!r}: {text}; positive whole numbers of pixels are needed.")
        if given.count(r) > 1:
            raise ResolutionError(
                f"{name} has {r} twice: {text}; each resolution needs one {needs}. Remove the repeat."
            )
    return tuple(sorted(map(operator.index, given), reverse=True))


def with_middles(resolutions: Sequence[int]) -> tuple[int, ...]:
    """Return the resolutions and the middle of each two neighbours, from the largest to the smallest.

    >>> with_middles((224, 192, 160))
    (224, 208, 192, 176, 160)

    Raises:
        ResolutionError: as `check_resolutions`.
    """
    order = check_resolutions(resolutions)
    middles = {(upper + lower) // 2 for upper, lower in itertools.pairwise(order)}
    return check_resolutions([*middles.union(order)])


def check_stages(stages: Sequence[int], thresholds: Sequence[float]) -> tuple[int, ...]:
    """Return the resolutions of a cascade in pixels, from the smallest to the largest.

    Raises:
        ResolutionError: there are fewer than two, or they do not increase.
        ConfigError: there is not a threshold in [0, 1] for each but the last.
    """
    order = check_resolutions(stages)[::-1] if stages else ()
    if len(order) < 2 or list(order) != list(stages):
        raise ResolutionError(
            f"the stages of the cascade are {','.join(map(str, stages))}; at least two resolutions are needed, from "
            "the smallest to the largest."
        )
    given = list(thresholds)
    if len(given) != len(order) - 1 or not all(_is_share(number) for number in given):
        raise ConfigError(
            f"the thresholds of the cascade are {given}; {len(order) - 1} numbers from 0 to 1 are needed, one for each "
            "stage but the last."
        )
    return order


def side_of(image: Tensor) -> int:
    """Return round(√(H·W)) of images (…, H, W)."""
    height, width = image.shape[-2:]
    return int(height) if height == width else round(math.sqrt(height * width))


def check_image(model: nn.Module, image: object) -> None:
    """Refuse what names no argument of a model's forward.

    Raises:
        ConfigError: it is neither a position nor a name, or no argument has the name.
    """
    names = argument_names(model)
    if isinstance(image, str) and image and names is not None and image.partition(".")[0] not in names:
        raise ConfigError(f"image is {image!r}; forward takes {', '.join(names) or 'nothing'}. Name one of them.")
    named = isinstance(image, str) and image != ""
    placed = isinstance(image, int) and not isinstance(image, bool) and image >= 0
    if not (image is None or named or placed):
        raise ConfigError(
            f"image is {image!r}; the name of an argument of forward, such as pixel_values or batch.image, or its "
            "position from 0 is needed."
        )


def find_images(
    model: nn.Module, examples: Mapping[int, Arguments], *, given: bool = True, image: int | str | None = None
) -> tuple[ImageArgument, ...]:
    """Return the arguments whose shapes follow the resolution, in examples of several resolutions.

    Args:
        given: whether the examples are the caller's, who knows the layout. Ours are images (N, C, H, W), and clips of
            16 frames where the layers are 3d; these may stand for volumes, so they count only where all sides agree.
        image: the position or name of the only one that counts; all of them for None.
    Raises:
        ConfigError: ``image`` is none of them.
    """
    names = positional_names(model)
    shapes = {r: dict(_leaves(arguments)) for r, arguments in examples.items()}
    first = next(iter(shapes.values()), {})
    found = []
    for (root, keys), shape in first.items():
        lengths = {r: held[root, keys] for r, held in shapes.items() if (root, keys) in held}
        if len(lengths) == len(shapes) and len({len(own) for own in lengths.values()}) == 1:
            position, name = _named(root, names)
            axes = _following(lengths)
            one = ImageArgument(position=position, name=name, keys=keys, ndim=len(shape), axes=axes)
            one = replace(one, channels=_channels(shape, axes))
            if axes and all(_side(one, own) == r for r, own in lengths.items()):
                found.append(one if given else _cautious(model, one))
    return tuple(found if image is None else _named_so(found, image))


def default_images(model: nn.Module) -> tuple[ImageArgument, ...]:
    """Return what ``find_images`` finds in our own examples, by the signature of forward alone."""
    if resizes_inside(model):
        return ()
    names, frames = positional_names(model), static_stem(model).frames
    places = [_named(i if p.kind is p.VAR_POSITIONAL else p.name, names) for i, p in enumerate(receivers(model))]
    images = [ImageArgument(position=i, name=name, ndim=4 + len(frames)) for i, name in places or [(0, None)]]
    return tuple(_cautious(model, image) for image in images)


def doubt(images: Sequence[ImageArgument]) -> str | None:
    """Return why a network may refuse to choose a path by its arguments; None if a single image decides."""
    if not images:
        return f"no argument of forward is known to be an image, so net(x) refuses. {_BY_LAYOUT}"
    names = ", ".join(image.label for image in images)
    if len(images) > 1:
        return f"forward takes several images ({names}), so net(x) refuses unless their sizes agree. {_BY_IMAGE}."
    if len(images[0].axes) > 2:
        return (
            f"{names} may be a clip or a volume, so net(x) refuses unless all of its sides agree. "
            "Choose the path yourself: net.at(resolution)(…); or convert with example=, which shows how it lies."
        )
    return None


def side_of_call(args: Sequence[Any], kwargs: Mapping[str, Any], images: Sequence[ImageArgument] | None) -> int:
    """Return the resolution that the images of a call have: round(√(H·W)), or the one side of a volume.

    Args:
        images: which arguments count; None takes the first one for images (N, C, H, W).
    Raises:
        ResolutionError: there is none, one is laid out in another way, or their sizes differ.
    """
    found = []
    for image in (ImageArgument(),) if images is None else images:
        value = _value(args, kwargs, image)
        if isinstance(value, Tensor):
            side = _side(image, value.shape)
            if side is None:
                equal = " of equal sides" if len(image.axes) > 2 else ""
                raise ResolutionError(
                    f"{image.label} is of {tuple(value.shape)}; images {image.layout}{equal} are needed to choose a "
                    f"path. {_BY_LAYOUT}"
                )
            found.append((image.label, side))
    if not found:
        labels = ", ".join(image.label for image in images or ()) or "none is known"
        raise ResolutionError(
            f"the input holds no tensor that shows the resolution; an image is needed (here: {labels}). {_BY_IMAGE}."
        )
    if len({side for _, side in found}) > 1:
        sides = ", ".join(f"{label} {side}" for label, side in found)
        raise ResolutionError(f"the images differ in size: {sides}; one size is needed to choose a path. {_BY_IMAGE}.")
    return found[0][1]


def run_views(paths: Iterable[nn.Module], views: Iterable[Tensor], images: Sequence[ImageArgument] | None) -> list[Any]:
    """Run each path on its view, which stands in the place of the first image among the arguments of forward."""
    place = next(iter(images or ()), ImageArgument())
    outputs = []
    for path, view in zip(paths, views, strict=True):
        value: Any = view
        for key in reversed(place.keys):
            value = {key: value}
        outputs.append(path(value) if place.position == 0 or place.name is None else path(**{place.name: value}))
    return outputs


def _leaves(arguments: Arguments) -> Iterator[tuple[tuple[int | str, _Keys], tuple[int, ...]]]:
    args, kwargs = as_call(arguments)
    roots: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for root, value in roots:
        yield from (((root, keys), shape) for keys, shape in _inside(value, ()))


def _inside(value: Any, keys: _Keys) -> Iterator[tuple[_Keys, tuple[int, ...]]]:
    """Yield the shapes of a tensor, or of those in a dictionary; a list has another length in another call."""
    if isinstance(value, Tensor):
        yield keys, tuple(value.shape)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _inside(inner, (*keys, key)) if isinstance(key, str) else ()


def _named(root: int | str, names: Sequence[str]) -> tuple[int | None, str | None]:
    if isinstance(root, int):
        return root, names[root] if root < len(names) else None
    return names.index(root) if root in names else None, root


def _named_so(found: Sequence[ImageArgument], image: int | str) -> list[ImageArgument]:
    meant = [one for one in found if image in (one.position, one.name, one.label)]
    if not meant:
        known = ", ".join(one.label for one in found) or "none"
        raise ConfigError(
            f"image is {image!r}; an argument is needed whose size counts as the resolution in the examples, here: "
            f"{known}. Name one of them, or show it by example=."
        )
    return [one for one in meant if one.label == str(image)] or meant


def _following(lengths: Mapping[int, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the axes, from the end, whose length changes with the resolution; for a single one those that equal it."""
    shapes = list(lengths.values())
    places = range(1 - len(shapes[0]), 0)  # the first axis is the batch
    if len(shapes) == 1:
        return tuple(i for i in places if shapes[0][i] == next(iter(lengths)))
    return tuple(i for i in places if len({shape[i] for shape in shapes}) > 1)


def _channels(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, int] | None:
    """Return the axis of the channels and their number: the shortest one but for the batch and the resolution."""
    others = [(shape[i], i) for i in range(1 - len(shape), 0) if i not in axes]
    number, axis = min(others, default=(0, 0))
    return (axis, number) if number > 0 else None


def _cautious(model: nn.Module, image: ImageArgument) -> ImageArgument:
    """Return an image of three sides for what may be a clip or a volume."""
    clips = any(kind.__module__.startswith(_CLIPS) for kind in type(model).__mro__)
    return replace(image, axes=(-3, -2, -1)) if image.ndim == 5 and not clips else image


def _value(args: Sequence[Any], kwargs: Mapping[str, Any], image: ImageArgument) -> Any:
    if image.position is not None and image.position < len(args):
        value = args[image.position]
    else:
        value = kwargs.get(image.name) if image.name is not None else None
    for key in image.keys:
        value = value[key] if isinstance(value, Mapping) and key in value else None
    return value


def _side(image: ImageArgument, shape: Sequence[int]) -> int | None:
    """Return the resolution of a shape; None where it does not fit the layout, which may be another one."""
    if len(shape) != image.ndim:
        return None
    lengths = [shape[axis] for axis in image.axes]
    if all(length == lengths[0] for length in lengths):
        return int(lengths[0])
    if len(lengths) > 2 or not _has_channels(image, shape):
        return None
    return round(math.sqrt(lengths[0] * lengths[1]))


def _has_channels(image: ImageArgument, shape: Sequence[int]) -> bool:
    """Return whether the channels are where they are expected; unknown ones must not seem to be last."""
    if image.channels is not None:
        axis, number = image.channels
        return shape[axis] == number
    return not (shape[-1] <= 4 and shape[-1] < min(shape[1:-1]))


def _is_share(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= 1


def _is_positive(number: Any) -> bool:
    """Return whether it is a whole number above 0, of Python or of NumPy."""
    try:
        return not isinstance(number, bool) and operator.index(number) > 0
    except TypeError:
        return False
