"""Write docs/commands.md from the commands' own help and FinetuneConfig's docstring.

python docs/make_commands.py
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
from click.testing import CliRunner

from rsconvert import FinetuneConfig
from rsconvert.cli import main

__all__ = ["commands_page"]


def commands_page() -> str:
    """Return the page as Markdown."""
    parts = ["# Commands", "", "Written by `python docs/make_commands.py`; a test keeps it equal to `--help`.", ""]
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
    text = inspect.getdoc(FinetuneConfig) or ""
    meanings = dict(re.findall(r"^    (\w+): (.*)$", text.replace("``", "`"), re.MULTILINE))
    told = {"lr": "0.005 · batch_size / 32 / S", "crop_aspect": "(3/4, 4/3)"}
    rows = [f"| `{f.name}` | `{told.get(f.name, f.default)}` | {meanings[f.name]} |" for f in fields(FinetuneConfig)]
    head = ["## Settings of finetune", "", "For `--config FILE.toml` and `--set KEY=VALUE`.", ""]
    return [*head, "| setting | default | meaning |", "|---|---|---|", *rows]


if __name__ == "__main__":
    Path(__file__).with_name("commands.md").write_text(commands_page(), encoding="utf-8")
