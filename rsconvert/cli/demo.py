"""The command demo."""

import click

from rsconvert.cli.options import force_option, json_option
from rsconvert.cli.printing import print_result

__all__ = ["demo"]


@click.command()
@click.option(
    "-o", "--output", type=click.Path(), default="rsconvert-demo", show_default=True, help="Folder for what is made."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawings and the training.")
@force_option
@json_option
def demo(output: str, seed: int, force: bool, as_json: bool) -> None:
    """Run the whole story on drawn images, offline, in a few minutes.

    Draws a small image set, trains an ordinary CNN at one resolution, converts and finetunes it, and compares both at
    nine resolutions. Leaves a table, a figure, the checkpoint and a plain export in a folder.
    """
    from rsconvert.demo import run_demo

    result = run_demo(output, seed=seed, force=force, log=None if as_json else lambda line: click.echo(line, err=True))
    print_result(result.to_dict(), as_json, str(result))
