"""The commands: each parses, calls the library, prints. Results go to stdout, progress to stderr.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

import signal
import warnings
from typing import Any

import click

from rsconvert import __version__
from rsconvert.cli.analyze import analyze
from rsconvert.cli.benchmark import benchmark
from rsconvert.cli.calibrate import calibrate
from rsconvert.cli.cascade import cascade
from rsconvert.cli.comparison import compare
from rsconvert.cli.demo import demo
from rsconvert.cli.evaluate import evaluate
from rsconvert.cli.export import export
from rsconvert.cli.files import inspect, wrap
from rsconvert.cli.finetune import finetune
from rsconvert.cli.models import models
from rsconvert.cli.once import run_once
from rsconvert.cli.report import report
from rsconvert.cli.verify import verify
from rsconvert.errors import NamelessModelWarning, RSConvertError

__all__ = ["main"]


class _Commands(click.Group):
    """Turns the errors of the library into one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NamelessModelWarning)  # wrap and finetune print a line of it
                return super().invoke(ctx)
        except RSConvertError as error:
            if ctx.params["debug"]:
                raise
            raise click.ClickException(" ".join(str(error).split())) from error
        except BrokenPipeError:
            raise  # click's own: a reader that has seen enough is no error
        except OSError as error:
            if ctx.params["debug"]:
                raise
            raise click.ClickException(f"{error}; a place with room is needed. Check it, or see --debug.") from error
        except KeyboardInterrupt as interrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would meet the interpreter as it shuts down
            again = "the same command" if ctx.invoked_subcommand == "compare" else "--resume"
            told = _told(interrupt)
            kept = f"{told}. Go on with {again}." if told else "what was written before is intact."
            raise click.ClickException(f"interrupted; {kept}") from None


def _told(interrupt: BaseException | None) -> str:
    """Return what an interrupted command says it has kept; one more Ctrl-C on its way out may stand before it."""
    while interrupt is not None and not (isinstance(interrupt, KeyboardInterrupt) and interrupt.args):
        interrupt = interrupt.__context__
    return "" if interrupt is None else str(interrupt)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Turn a BatchNorm CNN into one network that runs at several input resolutions."""


_SHARED = (finetune, evaluate)
"""The commands that several processes do together."""

_COMMANDS = (
    wrap,
    calibrate,
    finetune,
    evaluate,
    benchmark,
    analyze,
    cascade,
    export,
    verify,
    report,
    inspect,
    models,
    compare,
    demo,
)
for _command in _COMMANDS:
    main.add_command(_command if _command in _SHARED else run_once(_command))
