"""Write docs/commands.md from the commands' own help and the settings' own texts.

python docs/make_commands.py
"""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
from click.testing import CliRunner

from rsconvert.cli import main
from rsconvert.settings import FinetuneConfig, setting_help
from rsconvert.text import plain

__all__ = ["commands_page"]


_COMPLETION = [
    "Completion of commands, options and the names of models: a line in the file that the shell reads at its start.",
    "",
    "```sh",
    'eval "$(_RSCONVERT_COMPLETE=bash_source rsconvert)"   # ~/.bashrc',
    'eval "$(_RSCONVERT_COMPLETE=zsh_source rsconvert)"    # ~/.zshrc',
    "_RSCONVERT_COMPLETE=fish_source rsconvert | source    # ~/.config/fish/config.fish",
    "```",
    "",
]


def commands_page() -> str:
    """Return the page as Markdown."""
    parts = ["# Commands", "", "Written by `python docs/make_commands.py`; a test keeps it equal to `--help`.", ""]
    parts += _COMPLETION
    for words in _words(main):
        text = CliRunner().invoke(main, [*words, "--help"], prog_name="rsconvert", terminal_width=100).output
        parts += [f"## {' '.join(['rsconvert', *words])}", "", "```text", text.rstrip(), "```", ""]
    return "\n".join([*parts, *_settings()]) + "\n"


def _words(command: click.Command) -> Iterator[list[str]]:
    """Yield the words that call a command, and those of the commands below it."""
    yield []
    for name, below in getattr(command, "commands", {}).items():
        yield from ([name, *words] for words in _words(below))


def _settings() -> list[str]:
    """Return the table of everything that --config and --set reach."""
    settings = {item.name: setting_help(item.name) for item in fields(FinetuneConfig)}
    rows = [f"| `{name}` | `{plain(s.default)}` | {s.text.replace('``', '`')} |" for name, s in settings.items()]
    head = ["## Settings of finetune", "", "For `--config FILE.toml` and `--set KEY=VALUE`.", ""]
    return [*head, "| setting | default | meaning |", "|---|---|---|", *rows]


if __name__ == "__main__":
    Path(__file__).with_name("commands.md").write_text(commands_page(), encoding="utf-8")
