"""The commands: each parses, calls the library, prints. Results go to stdout, progress to stderr.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

import functools
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from rsconvert import __version__
from rsconvert.cli.adapt import calibrate, cascade, quantize
from rsconvert.cli.convert import models, wrap
from rsconvert.cli.export import export
from rsconvert.cli.files import inspect, verify
from rsconvert.cli.measure import benchmark, evaluate
from rsconvert.cli.predict import predict
from rsconvert.cli.study import analyze, report
from rsconvert.cli.train import compare, demo, finetune
from rsconvert.errors import ConfigError, NamelessModelWarning, RSConvertError
from rsconvert.text import printable

__all__ = ["main"]


# What other tools call the same.
_OTHERS = {
    **dict.fromkeys(("train", "fit", "tune"), "'finetune'"),
    **dict.fromkeys(("val", "validate", "eval", "test"), "'evaluate'"),
    **dict.fromkeys(("info", "show", "summary", "describe"), "'inspect'"),
    **dict.fromkeys(("infer", "inference", "classify", "detect", "segment", "run"), "'predict'"),
    **dict.fromkeys(("init", "create", "new"), "'wrap'"),
    "convert": "'wrap', which converts a model, or 'export', which writes files for others",
    "list": "'models'",
    "push": "'export --format hub'",
    "check": "'verify', or 'wrap --dry-run'",
    "bench": "'benchmark'",
    "speed": "'benchmark'",
}


class _Commands(click.Group):
    """Turns the errors of the library into one line and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the work, which is that of their registration."""
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in self.commands and (own := _OTHERS.get(args[0])) is not None:
            raise click.UsageError(f"No such command '{args[0]}'. Did you mean {own}?", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings(), _stoppable():
                warnings.simplefilter("ignore", NamelessModelWarning)  # wrap and finetune print a line of it
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click's own: a reader that has seen enough is no error
        except (RSConvertError, OSError) as error:
            if ctx.params["debug"]:
                raise
            place = "; a place with room is needed. Check it, or see --debug." if _is_of_a_place(error) else ""
            raise click.ClickException(printable(" ".join(f"{error}{place}".split()))) from error
        except KeyboardInterrupt as interrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would meet the interpreter as it shuts down
            again = "the same command" if ctx.invoked_subcommand == "compare" else "--resume"
            kept = _kept(interrupt)
            state = f"{kept}. Go on with {again}." if kept else "what was written before is intact."
            raise click.ClickException(f"interrupted; {state}") from None


def _is_of_a_place(error: Exception) -> bool:
    """Return whether an error means a file or a disk, not a process or a connection."""
    others = (ConnectionError, InterruptedError, ChildProcessError, ProcessLookupError)
    return isinstance(error, OSError) and not isinstance(error, others)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP stop a command as Ctrl-C does, where they would end the process without a word."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    in_main_thread = threading.current_thread() is threading.main_thread()
    changed = [number for number in numbers if in_main_thread and signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def _kept(interrupt: BaseException | None) -> str:
    """Return what an interrupted command says it has kept; one more Ctrl-C on its way out may stand before it."""
    while interrupt is not None and not (isinstance(interrupt, KeyboardInterrupt) and interrupt.args):
        interrupt = interrupt.__context__
    return "" if interrupt is None else str(interrupt)


def _run_once(command: click.Command) -> click.Command:
    """Make a command, or each command of a group, refuse to run in several processes, which would do the same work."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _run_once(below)
    elif command.callback is not None:
        command.callback = _refusing(command.callback, command.name)
    return command


def _refusing(callback: Any, name: str | None) -> Any:
    @functools.wraps(callback)
    def called(*args: Any, **kwargs: Any) -> Any:
        if os.environ.get("WORLD_SIZE", "1") != "1":  # else torch is imported by those that need it alone
            from rsconvert.evaluation import launched_processes

            if (processes := launched_processes()) > 1:
                raise ConfigError(
                    f"WORLD_SIZE is {processes}, so a launcher started {processes} processes; {name} runs in one, only "
                    "finetune and evaluate share their work. Start it without torchrun, or unset WORLD_SIZE."
                )
        return callback(*args, **kwargs)

    return called


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Turn a BatchNorm CNN into one network that runs at several input resolutions."""


_SHARED = (finetune, evaluate)  # by several processes
_ALONE = (quantize, predict, benchmark, analyze, cascade, export, verify, report, inspect, models, compare, demo)
for _command in (wrap, calibrate, *_SHARED, *_ALONE):
    main.add_command(_command if _command in _SHARED else _run_once(_command))
