"""A folder for a hub uploaded by the hub's own client."""

import re
from pathlib import Path

from huggingface_hub import HfApi

from rsconvert.errors import CheckpointError, ConfigError, one_line

__all__ = ["check_repository", "push_folder"]

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def check_repository(name: str) -> None:
    """Raise a ConfigError unless a name can be that of a repository on the hub."""
    if not _REPOSITORY.fullmatch(name) or "--" in name or ".." in name:
        raise ConfigError(f"push is {name!r}; USER/NAME of a repository is accepted, such as me/resnet50-switchable.")


def push_folder(folder: Path, repository: str) -> str:
    """Upload a folder as one commit, and return its address; the repository is made if there is none.

    The client takes the token of ``hf auth login`` or of HF_TOKEN.

    Raises:
        ConfigError: ``repository`` is not USER/NAME.
        CheckpointError: the hub can't be reached, or refuses.
    """
    check_repository(repository)
    api = HfApi()
    try:
        api.create_repo(repository, repo_type="model", exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, repo_type="model", commit_message="Switchable network of rsconvert"
        )
    except Exception as error:  # the hub's errors and those of its network share no base
        raise CheckpointError(
            f"{folder} could not be uploaded to {repository} ({one_line(error, with_class=True)}); a network "
            "connection and a token that may write are needed. Run hf auth login; the folder is complete and can be "
            "uploaded again."
        ) from error
    return str(commit.commit_url)
