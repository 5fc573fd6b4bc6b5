"""Commands that run once say so under a launcher, and their help is as ever."""

import pytest
from click.testing import CliRunner

from rsconvert.cli import main

CALLS = {
    "models": ["models"],
    "inspect": ["inspect", "x"],
    "wrap": ["wrap", "x"],
    "export": ["export", "x", "-o", "y"],
    "importance": ["analyze", "importance", "x"],
}


@pytest.mark.parametrize("name", CALLS)
def test_a_command_that_runs_once_says_so(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(main, CALLS[name])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: WORLD_SIZE is 2, so a launcher started 2 processes")
    assert f"; {name} runs in one, only finetune and evaluate share their work. Start it without" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_those_that_share_their_work_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for call in (["evaluate", "x", "--data", "y"], ["finetune", "x", "--data", "y", "--output", "z"]):
        result = CliRunner().invoke(main, call)
        assert result.exit_code == 1
        assert "WORLD_SIZE" not in result.stderr


def test_help_is_given_anywhere_and_one_process_is_no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, call in CALLS.items():
        words = call[: call.index(name) + 1]
        assert CliRunner().invoke(main, [*words, "--help"]).exit_code == 0
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert "WORLD_SIZE" not in CliRunner().invoke(main, CALLS["inspect"]).stderr
