"""What the commands share: options, and the text in them read as values."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from rsconvert.errors import CheckpointError, ConfigError, ResolutionError

__all__ = [
    "best_of",
    "class_map_option",
    "compute_options",
    "data_option",
    "device_option",
    "file_name",
    "floats",
    "force_option",
    "json_option",
    "literals",
    "model_option",
    "numbers",
    "options",
    "ranges",
    "reading_options",
    "refuse_existing",
    "resolution_list",
    "settings_options",
    "size_list",
    "strings",
    "workers_option",
]


def options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a decorator that adds several options in their order."""

    def apply(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else.")
force_option = click.option("--force", is_flag=True, help="Overwrite what exists.")
model_option = click.option(
    "--model", metavar="FILE.py:FUNCTION", help="The function that builds the network, if it has no library name."
)
data_option = click.option(
    "--data", required=True, metavar="DIR", help="Folder with train/ and val/ class folders, or a timm data-set string."
)
class_map_option = click.option(
    "--class-map",
    type=click.Path(),
    metavar="FILE",
    help="Gives each class folder its output, if the network has more: lines NAME INDEX, or a JSON object.",
)
workers_option = click.option("--workers", type=int, help="Processes that read images; 2.")
device_option = click.option("--device", help="Such as cpu or cuda; the default is a GPU if there is one.")
compute_options = options(
    click.option(
        "--amp",
        type=click.Choice(["bf16", "fp16", "off"]),
        help="Mixed precision; the default is bf16 on a GPU, off on a CPU.",
    ),
    workers_option,
    device_option,
)
settings_options = options(
    click.option("--recipe", metavar="NAME", help="Named settings: finetune, paper-resnet, paper-mobilenetv2."),
    click.option("--config", type=click.Path(), metavar="FILE.toml", help="Settings from a file."),
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any other setting; may be repeated."),
)
reading_options = options(
    click.option("--batch-size", type=int, default=64, show_default=True, help="Images per forward."),
    compute_options,
    click.option("--data-root", help="Where a timm data-set string finds its files."),
)


def best_of(place: str) -> str:
    """Return the checkpoint that a place means, as ``rsconvert.load`` takes it."""
    from rsconvert.checkpoint import file_of

    return file_of(place)


def refuse_existing(path: Path, force: bool, *, may_be_folder: bool = False) -> None:
    """Raise a CheckpointError for a path that exists, unless told to overwrite, or without a name or a folder."""
    if path == Path():
        raise CheckpointError("output is empty; the name of a file or folder is needed. Give one by --output.")
    if not path.absolute().parent.is_dir():
        raise CheckpointError(f"{path.parent} is no folder; one that exists is needed. Create it, or check the path.")
    if path.is_dir() and not may_be_folder:
        raise CheckpointError(f"{path} is a folder; the name of a file is needed. Give one by --output.")
    if path.exists() and not force:
        raise CheckpointError(
            f"{path} exists; a new name is needed. Choose another by --output, or overwrite with --force."
        )


def file_name(model: str) -> str:
    """Return a model's name as part of a file name."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in model.rpartition("/")[2])


def numbers(text: str) -> list[Any]:
    """Split a list; what is not a whole number stays text, for the library to name it."""
    return [_number(part) for part in text.split(",")]


def resolution_list(text: str) -> tuple[int, ...]:
    """Read resolutions, and ranges FIRST:LAST:STEP that hold both ends: from the largest to the smallest.

    Raises:
        ResolutionError: a number is no positive whole one, or comes twice.
    """
    from rsconvert.surgery import check_resolutions

    return check_resolutions(ranges(text))


def ranges(text: str, name: str = "resolutions") -> list[Any]:
    """Split a list as `numbers` does, ranges FIRST:LAST:STEP written out.

    Raises:
        ResolutionError: a range is none.
    """
    return [side for part in text.split(",") for side in _sides(part, name)]


def size_list(text: str) -> tuple[Any, ...]:
    """Read a list as `resolution_list` does, with pairs HEIGHTxWIDTH behind the squares.

    Raises:
        ResolutionError: as there.
    """
    from rsconvert.evaluation import check_sizes

    parts = text.split(",")
    pairs = [tuple(numbers(part.replace("x", ","))) for part in parts if "x" in part]
    squares = ",".join(part for part in parts if "x" not in part)
    return check_sizes((*(resolution_list(squares) if squares else ()), *pairs))


def _sides(part: str, name: str) -> list[Any]:
    """Return the numbers of ``96:256:16``, or the one number; what is no number stays text."""
    bounds = numbers(part.replace(":", ","))
    if ":" not in part:
        return bounds
    if len(bounds) != 3 or not all(isinstance(bound, int) and bound > 0 for bound in bounds):
        raise ResolutionError(
            f"{name} has {part}; a range is FIRST:LAST:STEP in pixels, such as 96:224:16. Mend the list."
        )
    first, last, step = bounds
    return list(range(min(first, last), max(first, last) + 1, step))


def _number(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text.strip()


def floats(name: str, text: str | None, example: str = "0.5,0.5,0.5") -> tuple[float, ...] | None:
    """Split a list of numbers."""
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{name} is {text}; numbers such as {example} are accepted. Correct it.") from None


def strings(pairs: tuple[str, ...]) -> dict[str, str]:
    """Split KEY=VALUE pairs."""
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise ConfigError(f"setting {wrong[0]!r} has no value; KEY=VALUE is accepted. Correct it.")
    return dict(pair.split("=", 1) for pair in pairs)


def literals(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read values as Python literals, as timm does; anything else is text."""
    return {key: _literal(value) for key, value in strings(pairs).items()}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)
