"""Commands that run in one process: several of them, started by torchrun, would do the same work several times."""

import functools
import os
from typing import Any

import click

from rsconvert.errors import ConfigError

__all__ = ["run_once"]


def run_once(command: click.Command) -> click.Command:
    """Make a command, or each command of a group, refuse to run in one of several processes."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            run_once(below)
    elif command.callback is not None:
        command.callback = _refusing(command.callback, command.name)
    return command


def _refusing(callback: Any, name: str | None) -> Any:
    @functools.wraps(callback)
    def called(*args: Any, **kwargs: Any) -> Any:
        if os.environ.get("WORLD_SIZE", "1") != "1":  # else torch is imported by those that need it alone
            _check_alone(name)
        return callback(*args, **kwargs)

    return called


def _check_alone(name: str | None) -> None:
    from rsconvert.evaluation import launched_processes

    if (processes := launched_processes()) > 1:
        raise ConfigError(
            f"WORLD_SIZE is {processes}, so a launcher started {processes} processes; {name} runs in one, only "
            "finetune and evaluate share their work. Start it without torchrun, or unset WORLD_SIZE."
        )
