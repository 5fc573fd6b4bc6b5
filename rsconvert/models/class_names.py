"""What the outputs of a classifier are called, as far as it is known."""

import re
from collections.abc import Sequence
from functools import cache

from timm.data import ImageNetInfo

from rsconvert.models.source import Source

__all__ = ["output_names", "readable_names"]

_PRETRAINED = "pretrained "
_SUBSETS = {1000: "imagenet-1k", 11821: "imagenet-12k", 21841: "imagenet-22k"}
_SYNSET = re.compile(r"n\d{8}")  # how ImageNet names its classes


def output_names(source: Source) -> tuple[str, ...] | None:
    """Return the name of each output: those of the data that it was trained on, ImageNet's for its own weights.

    Weights that were downloaded with ImageNet's number of outputs, and not trained since, predict its classes in their
    usual order. None if nothing is known.
    """
    if source.class_names is not None:
        return readable_names(source.class_names)
    subset = _SUBSETS.get(source.num_classes or 0)
    published = (source.weights or "").startswith(_PRETRAINED) and not source.new_classifier and not source.training
    if subset is None or not published:
        return None
    return tuple(_words(name) for name in _imagenet(subset).label_names())


def readable_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names with those of ImageNet in words.

    >>> readable_names(["n01440764", "church"])
    ('tench', 'church')
    """
    return tuple(_words(name) if _SYNSET.fullmatch(name) else name for name in names)


def _words(synset: str) -> str:
    """Return the first of a synset's synonyms; the synset itself if ImageNet has no such one."""
    try:
        description = _imagenet("imagenet-22k").label_name_to_description(synset)
    except KeyError:
        return synset
    return str(description).partition(",")[0]


@cache
def _imagenet(subset: str) -> ImageNetInfo:
    return ImageNetInfo(subset)
