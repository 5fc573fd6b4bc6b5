"""A place of a network: a file, the folder of a run, a folder for a hub, the hub itself; to the file that it means."""

from pathlib import Path

from rsconvert.errors import CheckpointError

__all__ = ["file_of"]

_BEST, _PUBLISHED = "best.safetensors", "rsconvert.safetensors"


def file_of(place: str | Path) -> str:
    """Return the switchable file that a place means: itself, the best one of a run folder, that of a hub folder.

    ``local-dir:DIR`` is a hub folder, ``hf-hub:USER/NAME`` one on the hub, which may end in ``@REVISION`` and is
    fetched.

    Raises:
        CheckpointError: a folder holds no such file, or the hub can't be reached.
    """
    scheme, _, rest = str(place).partition(":")
    if scheme == "hf-hub":
        return _downloaded(rest)
    folder, names = Path(place), [_BEST, _PUBLISHED]
    if scheme == "local-dir":
        folder, names = Path(rest), [_PUBLISHED]
    elif not folder.is_dir():
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
        return str(hf_hub_download(repository, _PUBLISHED, revision=revision or None))
    except Exception as error:  # the hub's errors and those of its network share no base
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(
            f"hf-hub:{place} is unavailable ({reason}); USER/NAME of a repository with {_PUBLISHED}, and a network "
            "connection, are needed. Check the name, or give a file."
        ) from error
