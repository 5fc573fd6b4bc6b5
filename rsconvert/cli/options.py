"""What the commands share: options in bundles, their text read as values, results printed.

Commands write ``from rsconvert.cli import options`` and ``@options.data``.
"""

import ast
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click
from click.core import ParameterSource

from rsconvert.errors import CheckpointError, ConfigError, ResolutionError
from rsconvert.recipes import RECIPES
from rsconvert.settings import setting_help
from rsconvert.text import printable

if TYPE_CHECKING:
    from rsconvert.data import Split
    from rsconvert.evaluation import Masks

__all__ = [
    "Labelled",
    "MaskOptions",
    "Reading",
    "amp",
    "as_json",
    "baselines",
    "bundle",
    "checkpoint",
    "class_map",
    "class_map_of_outputs",
    "config",
    "data",
    "data_root",
    "default_of",
    "defaulted",
    "device",
    "floats",
    "force",
    "labelled",
    "literals",
    "log",
    "mask_reading",
    "masks",
    "model",
    "numbers",
    "output",
    "print_result",
    "ranges",
    "reading",
    "refuse_existing",
    "refuse_given",
    "refuse_ineffective",
    "resolution_list",
    "resolutions",
    "result",
    "seed",
    "settings",
    "share_table",
    "size_list",
    "skip_broken",
    "split",
    "strings",
    "unlabelled",
    "words",
    "workers",
]

_Decorator = Callable[[Any], Any]


class Reading(TypedDict):
    """The options of `reading`."""

    batch_size: int
    workers: int
    device: str | None
    data_root: str | None
    skip_broken: int


class MaskOptions(TypedDict):
    """The options of `masks`, each None if it is not given."""

    label_offset: int | None
    class_names: str | None
    resize: str | None


class Labelled(Reading):
    """The options of `labelled`."""

    amp: str | None
    class_map: str | None
    split: "Split | float"


def bundle(*decorators: _Decorator) -> _Decorator:
    """Return a decorator that adds several options in their order."""

    def apply(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


_FORMS: dict[str, dict[str, Any]] = {
    "lr": {"type": float},
    "split": {"type": float, "metavar": "SHARE"},
    "views": {"metavar": "all|sandwich|N"},
    "teacher": {"metavar": "MODEL"},
    "class_map": {"type": click.Path(), "metavar": "FILE"},
    "class_names": {"type": click.Path(), "metavar": "FILE"},
    "log_dir": {"type": click.Path(), "metavar": "DIR"},
    "compile": {"is_flag": False, "flag_value": "default"},
}


def settings(*names: str) -> _Decorator:
    """Return the options of settings of finetuning, each None if it is not given."""
    return bundle(*map(_setting, names))


def _setting(name: str) -> _Decorator:
    about = setting_help(name)
    kind = click.Choice(about.choices) if about.choices else str if about.default is None else type(about.default)
    form = {"type": kind, "is_flag": isinstance(about.default, bool) or None, **_FORMS.get(name, {})}
    return click.option(f"--{name.replace('_', '-')}", default=None, help=about.sentence, **form)


class _OwnDefault(click.Option):
    """An option whose default is computed when its command is chosen."""

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        return super().get_default(ctx, call=True)


def defaulted(function: str, *names: str, **more: Any) -> _Decorator:
    """Return an option whose default is that of the argument of a function, such as ``runtime.fit_cascade``."""
    argument = names[-1].lstrip("-").replace("-", "_")
    default = partial(default_of, function, argument)
    return click.option(*names, cls=_OwnDefault, default=default, show_default=True, **more)


def default_of(function: str, argument: str) -> Any:
    """Return the default of an argument out of the function's source: an import would load torch for ``--help``.

    >>> default_of("evaluation.predict", "batch_size")
    64
    """
    home, _, name = function.rpartition(".")
    arguments = _definition(f"rsconvert.{home}", name).args
    found = next(d for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if a.arg == argument and d)
    value = ast.literal_eval(found)
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def _definition(module: str, name: str) -> ast.FunctionDef:
    file = Path(__file__).parents[2].joinpath(*module.split("."))
    source = file.joinpath("__init__.py") if file.is_dir() else file.with_suffix(".py")
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and name in [alias.name for alias in node.names]:
            return _definition(node.module, name)
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise AssertionError(f"{module} has no function {name}")


def numbers(text: str) -> list[Any]:
    """Split a list; what is not a whole number stays text, for the library to name it."""
    return [_number(part) for part in text.split(",")]


def words(text: str) -> list[str]:
    """Split a list of names."""
    return [word.strip() for word in text.split(",")] if text else []


def resolution_list(text: str) -> tuple[int, ...]:
    """Read resolutions, and ranges FIRST:LAST:STEP that hold both ends: from the largest to the smallest.

    Raises:
        ResolutionError: a number is no positive whole one, or comes twice.
    """
    from rsconvert.surgery import check_resolutions

    return check_resolutions(ranges(text))


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


def ranges(text: str, name: str = "resolutions") -> list[Any]:
    """Split a list as `numbers` does, ranges FIRST:LAST:STEP written out.

    Raises:
        ResolutionError: a range is none.
    """
    sides: list[Any] = []
    for part in text.split(","):
        bounds = numbers(part.replace(":", ","))
        if ":" in part:
            if len(bounds) != 3 or not all(isinstance(bound, int) and bound > 0 for bound in bounds):
                raise ResolutionError(f"{name} has {part}; a range is FIRST:LAST:STEP in pixels, such as 96:224:16.")
            first, last, step = bounds
            bounds = list(range(min(first, last), max(first, last) + 1, step))
        sides += bounds
    return sides


def _number(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text.strip()


def floats(name: str, text: str, example: str = "0.5,0.5,0.5") -> tuple[float, ...]:
    """Split a list of numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{name} is {text}; numbers such as {example} are accepted.") from None


def share_table(name: str, text: str) -> float | dict[int, float]:
    """Read one number, or a table RESOLUTION=NUMBER,….

    Raises:
        ConfigError: it is neither, or names a resolution twice.
    """
    try:
        if "=" not in text:
            return float(text)
        rows = [(int(resolution), float(share)) for resolution, share in (row.split("=") for row in text.split(","))]
    except ValueError:
        rows = []
    if not rows or len(dict(rows)) < len(rows):
        raise ConfigError(
            f"{name} is {text}; one number such as 0.875, or a table such as 224=0.95,96=0.875 without a repeat, is "
            "accepted."
        )
    return dict(rows)


def strings(pairs: tuple[str, ...]) -> dict[str, str]:
    """Split KEY=VALUE pairs."""
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise ConfigError(f"setting {wrong[0]!r} has no value; KEY=VALUE is accepted.")
    return dict(pair.split("=", 1) for pair in pairs)


def literals(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read values as Python literals, as timm does; anything else is text."""
    return {key: _literal(value) for key, value in strings(pairs).items()}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def refuse_existing(path: str | Path, force: bool, *, may_be_folder: bool = False) -> None:
    """Raise a CheckpointError for a path that exists, unless forced, or without a name or a folder."""
    path = Path(path)
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


def log(text: str) -> None:
    """Print to stderr; names out of files may not move the cursor."""
    click.echo(_shown(text), err=True)


def print_result(facts: Mapping[str, Any], as_json: bool, text: object) -> None:
    """Print one JSON object, or the text."""
    click.echo(json.dumps(facts) if as_json else _shown(str(text)))


def _shown(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def resolutions(help: str, read: Callable[[str], Any] = resolution_list, **more: Any) -> _Decorator:
    """Return the option --resolutions, read as a tuple; None if it is not given."""

    def parsed(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
        if context.resilient_parsing:  # a shell completes another word, and reading would import torch
            return text
        return None if text is None else read(text)

    return click.option("--resolutions", metavar="LIST", callback=parsed, help=help, **more)


def output(help: str, **more: Any) -> _Decorator:
    """Return the option --output for a file."""
    return click.option("-o", "--output", type=click.Path(), help=help, **more)


def unlabelled(*, required: bool) -> _Decorator:
    """Return the option --data for images whose labels don't matter."""
    help = "Folder of images, of whose train/ if it has one, or a timm data-set string; labels are not needed."
    return click.option("--data", required=required, metavar="DIR", help=help)


def refuse_given(*names: str, without: str) -> None:
    """Raise a ConfigError if the user gave one of the options, which have no effect without another one."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ConfigError(
                f"{name} is {context.params[name]} without {without}, so it has no effect. Give --{without}, or leave "
                "it out."
            )


def refuse_ineffective(*names: str, where: str) -> None:
    """Raise a ConfigError if the user gave one of the options, which have no effect there."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ConfigError(f"{name} is {context.params[name]}, which has no effect on {where}. Leave it out.")


def mask_reading(label_offset: int | None, resize: str | None, class_names: str | None = None) -> "Masks":
    """Return how masks are read, with the defaults of the options of `masks` that are not given."""
    from rsconvert.evaluation import Masks

    return Masks(
        label_offset=label_offset or 0,
        class_names=class_names,
        resize=resize or "squash",  # type: ignore[arg-type]  # one of click's choices
    )


def seed(function: str, help: str) -> _Decorator:
    """Return the option --seed of a function."""
    return defaulted(function, "--seed", type=click.IntRange(0, 2**32 - 1), help=help)


def _split(context: click.Context, parameter: click.Parameter, text: str) -> str | float:
    if text in ("val", "test", "train"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"split is {text}; val, test, train or a share such as 0.8 is accepted.") from None


split = click.option(
    "--split",
    default="val",
    show_default=True,
    metavar="NAME|SHARE",
    callback=_split,
    help="val, test or train; or what finetune --split SHARE holds back of a plain folder of classes.",
)
checkpoint = click.argument("checkpoint", type=click.Path(), metavar="CHECKPOINT|RUN_DIR")
data = click.option(
    "--data",
    required=True,
    metavar="DIR",
    help="Folder with train/ and val/ class folders, or of images and masks; or a timm data-set string.",
)
baselines = click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="[NAME=]FILE|MODEL",
    help="Another network to measure: a checkpoint, plain weights for the same architecture, an ONNX file of the "
    "network, a model's name; may be repeated.",
)
class_map = click.option(
    "--class-map",
    type=click.Path(),
    metavar="FILE",
    help="Gives each class folder its output, if the network has more: lines NAME INDEX, or a JSON object.",
)
class_map_of_outputs = click.option(
    "--class-map",
    type=click.Path(),
    metavar="FILE",
    help="Names of the outputs, among which alone is predicted: lines NAME INDEX, or a JSON object.",
)
masks = settings("label_offset", "class_names", "resize")
amp = settings("amp")
workers = defaulted("evaluation.predict", "--workers", type=int, help="Processes that read images.")
device = settings("device")
data_root = settings("data_root")
skip_broken = defaulted(
    "evaluation.predict",
    "--skip-broken",
    type=int,
    metavar="N",
    help="Images that can't be read and may be left out, each named; all are decoded once more before.",
)
reading = bundle(
    defaulted("evaluation.predict", "--batch-size", type=int, help="Images per forward."),
    workers,
    device,
    data_root,
    skip_broken,
)
labelled = bundle(reading, amp, class_map, split)
config = bundle(
    click.option("--recipe", metavar="NAME", help=f"Named settings: {', '.join(RECIPES)}."),
    click.option("--config", type=click.Path(), metavar="FILE.toml", help="Settings from a file."),
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any other setting; may be repeated."),
)
model = click.option(
    "--model", metavar="FILE.py:FUNCTION", help="The function that builds the network, if it has no library name."
)
force = click.option("--force", is_flag=True, help="Overwrite what exists.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else.")
result = bundle(model, force, as_json)
