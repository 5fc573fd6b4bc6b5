"""What a file of a network will need beside itself, said before the work rather than when it is opened."""

import warnings

from rsconvert.errors import NamelessModelWarning
from rsconvert.models import is_file_name
from rsconvert.surgery import BUILD, SwitchableModel

__all__ = ["loading_note", "warn_of_loading"]


def loading_note(net: SwitchableModel) -> str | None:
    """Return one line on what ``load`` will need for a file of the network; None if the file alone will do."""
    if net.restructured:
        return (
            "modules of the network were replaced, so its file will need a plain model with the same ones: "
            "rsconvert.load(path, model=…)."
        )
    name, again = net.source.architecture, ", build=…" if net.source.built_with == BUILD else ""
    if name is None:
        return (
            f"the network has no name, so its file will need the plain model: rsconvert.load(path, model=…{again}), or "
            "--model FILE.py:FUNCTION. If a builder's name and arguments make the same model, give them to "
            "make_switchable(…, name=…, model_kwargs=…)."
        )
    if is_file_name(name):
        return (
            f"{name} is a function of your own, so the network's file will need it again: --model {name}, or "
            f"rsconvert.load(path, model=…{again})."
        )
    if again:
        return "the network is made by build=, so its file will need it again: rsconvert.load(path, model=…, build=…)."
    return None


def warn_of_loading(net: SwitchableModel, stacklevel: int = 3) -> None:
    """Warn of what `loading_note` says; ``stacklevel`` is that of the caller's caller, as ``warnings.warn`` counts."""
    note = loading_note(net)
    if note is not None:
        warnings.warn(note, NamelessModelWarning, stacklevel=stacklevel)
