"""The commands in the pages exist, with the options that the pages give them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rsconvert.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words after ``rsconvert`` of each line in a block for the shell."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:ba)?sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            if found := re.match(r"(?:.*(?:&&|bin/) ?)?(?:.*-m )?(?:.venv/bin/)?rsconvert (.*)", line):
                yield shlex.split(found[1], comments=True)


def parse(words: list[str]) -> str:
    """Return the command that the words call; its parser refuses what it does not know."""
    command: click.Command = main
    context = click.Context(main, **main.context_settings)
    while isinstance(command, click.Group):
        name, *words = words
        command = command.get_command(context, name) or pytest.fail(f"no command {name}")
        context = click.Context(command, context, **command.context_settings)
    command.make_parser(context).parse_args([word for word in words if word != "…"])
    return str(command.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    for words in commands(page):
        parse(words)


def test_the_stories_show_the_main_commands() -> None:
    shown = {parse(words) for words in commands(ROOT / "docs" / "stories.md")}
    assert shown >= {"wrap", "finetune", "evaluate", "benchmark", "cascade", "predict", "export", "report"}


def test_an_option_that_does_not_exist_is_seen() -> None:
    with pytest.raises(click.NoSuchOption, match="--resolution-of"):
        parse(["predict", "run", "--resolution-of", "1"])
