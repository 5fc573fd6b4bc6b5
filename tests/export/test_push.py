"""The upload of a folder, against a client that only notes what it was asked for."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.export import push
from rsconvert.export.push import check_repository, push_folder

Calls = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What a fake of the hub's client was asked for; the arguments are checked against those of the real one."""
    noted: Calls = []
    real = push.HfApi

    class Fake:
        def create_repo(self, repo_id: str, *, repo_type: str, exist_ok: bool) -> None:
            noted.append(("create_repo", {"repo_id": repo_id, "exist_ok": exist_ok}))

        def upload_folder(self, *, repo_id: str, folder_path: Path, repo_type: str, commit_message: str) -> Any:
            files = sorted(path.name for path in Path(folder_path).iterdir())
            noted.append(("upload_folder", {"repo_id": repo_id, "files": files}))
            return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")

    for name in ("create_repo", "upload_folder"):
        assert set(_names(getattr(Fake, name))) <= set(_names(getattr(real, name)))
    monkeypatch.setattr(push, "HfApi", Fake)
    return noted


def _names(function: Callable[..., Any]) -> list[str]:
    import inspect

    return list(inspect.signature(function).parameters)


def test_a_folder_is_uploaded_as_one_commit(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("card")
    assert push_folder(tmp_path, "me/net.2") == "https://huggingface.co/me/net.2/commit/1"
    assert calls == [
        ("create_repo", {"repo_id": "me/net.2", "exist_ok": True}),
        ("upload_folder", {"repo_id": "me/net.2", "files": ["README.md"]}),
    ]


@pytest.mark.parametrize("name", ["", "net", "me/", "/net", "me/net/more", "me/a b", "../net", "me/a--b", "hf:me/net"])
def test_other_names_are_refused(name: str, calls: Calls, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="USER/NAME of a repository is accepted"):
        push_folder(tmp_path, name)
    assert calls == []


def test_a_refusal_of_the_hub_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Refusing:
        def create_repo(self, *_: Any, **__: Any) -> None:
            raise OSError("401 Client Error:\nUnauthorized")

    monkeypatch.setattr(push, "HfApi", Refusing)
    with pytest.raises(CheckpointError, match=r"\(OSError: 401 Client Error: Unauthorized\).*hf auth login") as caught:
        push_folder(tmp_path, "me/net")
    assert "\n" not in str(caught.value)


def test_names_of_repositories() -> None:
    for name in ("me/net", "my-team/resnet50_a1", "0x/1.2"):
        check_repository(name)
