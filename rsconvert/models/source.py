"""Source: what a network was made from, as far as it is known."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from rsconvert.data import Preprocessing
from rsconvert.models.image_argument import ImageArgument

__all__ = ["Source", "set_source", "source_of"]

_ATTRIBUTE = "rsconvert_source"


@dataclass(frozen=True, kw_only=True)
class Source:
    """The facts that build a plain model again and feed it rightly.

    ``architecture`` is a timm name, ``torchvision/NAME``, ``file.py:function`` or None for a model made elsewhere;
    ``model_kwargs`` are its arguments, with ``num_classes`` only if a file's function was given it, ``num_classes`` the
    outputs. ``built_with`` is the builder's argument that fits the model to a resolution, ``img_size`` or
    ``dynamic_img_size``, ``build`` for a function of the caller's, None if one model takes all sizes.
    ``images`` are the arguments of ``forward`` whose size chooses the path, None if that was not looked into.
    ``weights`` says where the values came from, ``licence`` what their publisher says of them, None if unknown,
    ``new_classifier`` which tensors they lacked; ``training`` holds what a finetuning run recorded.
    """

    architecture: str | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    built_with: str | None = None
    images: tuple[ImageArgument, ...] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    weights: str | None = None
    licence: str | None = None
    new_classifier: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    training: Mapping[str, Any] | None = None


def source_of(model: nn.Module) -> Source:
    """Return what ``create_model`` noted on a model; an empty Source for a model made elsewhere."""
    source = vars(model).get(_ATTRIBUTE)
    return source if isinstance(source, Source) else Source()


def set_source(model: nn.Module, source: Source) -> None:
    """Note on a model what it was made from."""
    setattr(model, _ATTRIBUTE, source)
