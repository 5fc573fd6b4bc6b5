"""Where a network is kept: the file that a place means, and what that file will need to be loaded."""

import warnings
from pathlib import Path

from rsconvert.errors import CheckpointError, NamelessModelWarning, one_line
from rsconvert.models import check_reachable, is_file_name, is_model_name
from rsconvert.surgery import BUILD, SwitchableModel

__all__ = ["BEST", "PUBLISHED", "file_of", "loading_note", "warn_of_loading"]

BEST, PUBLISHED = "best.safetensors", "rsconvert.safetensors"  # in the folder of a run, in one for a hub


def file_of(place: str | Path) -> str:
    """Return the switchable file that a place means: itself, the best one of a run folder, that of a hub folder.

    ``local-dir:DIR`` is a hub folder, ``hf-hub:USER/NAME`` one on the hub, which may end in ``@REVISION`` and is
    fetched.

    Raises:
        CheckpointError: a folder holds no such file, the hub can't be reached, or the place is the name of a model.
    """
    scheme, _, rest = str(place).partition(":")
    if scheme == "hf-hub":
        return _downloaded(rest)
    folder, names = Path(place), [BEST, PUBLISHED]
    if scheme == "local-dir":
        folder, names = Path(rest), [PUBLISHED]
    elif not folder.is_dir():
        if not folder.exists() and is_model_name(str(place)):
            raise CheckpointError(
                f"{place} is a model's name; a switchable file is needed. Convert it first: rsconvert wrap {place}."
            )
        return str(place)
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise CheckpointError(
            f"{place} holds no {' or '.join(names)}; a checkpoint, the folder of a run, or one that export wrote for a "
            "hub, is needed. Check the path."
        )
    return str(found[0])


def _downloaded(place: str) -> str:
    from huggingface_hub import hf_hub_download

    repository, _, revision = place.partition("@")
    try:
        check_reachable(place, PUBLISHED)
        return str(hf_hub_download(repository, PUBLISHED, revision=revision or None))
    except Exception as error:  # the hub's errors and those of its network share no base
        raise CheckpointError(
            f"hf-hub:{place} is unavailable ({one_line(error, with_class=True)}); USER/NAME of a repository with "
            f"{PUBLISHED}, and a network connection, are needed. Check the name, or give a file."
        ) from error


def loading_note(net: SwitchableModel) -> str | None:
    """Return one line on what ``load`` will need for a file of the network; None if the file alone is enough."""
    name, again = net.source.architecture, ", build=…" if net.source.built_with == BUILD else ""
    if net.restructured:
        return (
            "modules of the network were replaced, so its file will need a plain model with the same ones: "
            "rsconvert.load(path, model=…)."
        )
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
    """Warn with `loading_note`; ``stacklevel`` is that of the caller's caller, as ``warnings.warn`` counts."""
    if (note := loading_note(net)) is not None:
        warnings.warn(note, NamelessModelWarning, stacklevel=stacklevel)
