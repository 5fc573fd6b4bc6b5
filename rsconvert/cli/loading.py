"""A checkpoint's network, built by its name or by the function that the caller names."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from rsconvert.surgery import SwitchableModel

__all__ = ["load_network"]


def load_network(checkpoint: str, model: str | None) -> "SwitchableModel":
    """Return the network of a checkpoint; ``model`` is FILE.py:FUNCTION, or None for a library's name.

    A network that was built for each resolution needs a function that takes ``img_size``.
    """
    from rsconvert import create_model, load
    from rsconvert.checkpoint import read_metadata
    from rsconvert.zoo import is_file_name

    if model is None:
        return load(checkpoint)
    facts = read_metadata(checkpoint)
    kwargs = dict(facts.get("model_kwargs", {}))
    # A file's function gets num_classes only if it got it before: by default it may count in its own way.
    given = kwargs.pop("num_classes", None) if is_file_name(facts.get("architecture", "")) else facts.get("num_classes")

    def build(**more: int) -> "nn.Module":
        return create_model(model, num_classes=given, model_kwargs={**kwargs, **more})

    again = (lambda resolution: build(img_size=resolution)) if facts.get("built_with") == "build" else None
    return load(checkpoint, build(), build=again)
