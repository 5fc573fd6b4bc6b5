"""Write docs/commands.md from the commands' own help and FinetuneConfig's docstring.

python docs/make_commands.py
"""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import click

from rsconvert import FinetuneConfig
from rsconvert.cli import main

__all__ = ["commands_page"]


def commands_page() -> str:
    """Return the page as Markdown."""
    context = click.Context(main, info_name="rsconvert", max_content_width=100, terminal_width=100)
    parts = ["# Commands", "", "Written by `python docs/make_commands.py`; a test keeps it equal to `--help`.", ""]
    parts += _section("rsconvert", main, context)
    for name, command in main.commands.items():
        parts += _section(f"rsconvert {name}", command, click.Context(command, info_name=name, parent=context))
    return "\n".join([*parts, *_settings()]) + "\n"


def _section(title: str, command: click.Command, context: click.Context) -> list[str]:
    context.max_content_width = context.terminal_width = 100
    return [f"## {title}", "", "```text", command.get_help(context), "```", ""]


def _settings() -> list[str]:
    """Return the table of everything that --config and --set reach."""
    text = inspect.getdoc(FinetuneConfig) or ""
    meanings = dict(re.findall(r"^    (\w+): (.*)$", text, re.MULTILINE))
    rows = [f"| `{f.name}` | `{f.default}` | {meanings[f.name]} |" for f in fields(FinetuneConfig)]
    head = ["## Settings of finetune", "", "For `--config FILE.toml` and `--set KEY=VALUE`.", ""]
    return [*head, "| setting | default | meaning |", "|---|---|---|", *rows]


if __name__ == "__main__":
    Path(__file__).with_name("commands.md").write_text(commands_page(), encoding="utf-8")
