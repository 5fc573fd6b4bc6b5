"""Imports point one way, seen in the source itself: every import of every file, also those inside functions."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "rsconvert"
TREE = Path(__file__).parents[1] / PACKAGE

# A file imports from its own layer and from those to the left of it. The package's __init__ stands left of demo.
LAYERS = (
    "errors",
    "text",
    "settings",
    "recipes",
    "data",
    "models",
    "surgery",
    "quantization",
    "compatibility",
    "checkpoint",
    "evaluation",
    "wrapping",
    "calibration",
    "training",
    "export",
    "runtime",
    "study",
    "",
    "demo",
    "cli",
    "__main__",
)


def module_of(file: Path, tree: Path) -> list[str]:
    """Dotted parts of ``file`` below the package; the package's own __init__ is ``[]``."""
    parts = list(file.relative_to(tree).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def base_of(node: ast.ImportFrom, file: Path, tree: Path) -> str:
    """The absolute name of the module that a ``from`` import names."""
    if not node.level:
        return node.module or ""
    folder = [tree.name, *file.relative_to(tree).parts[:-1]]
    above = folder[: len(folder) - node.level + 1]
    return ".".join([*above, node.module] if node.module else above)


def imported_names(file: Path, tree: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything that ``file`` imports from the package."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{base_of(node, file, tree)}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == tree.name)


def layer_of(name: str, tree: Path) -> str:
    """The layer that an import of ``name`` reaches; a name of the package itself belongs to its __init__."""
    top = [*name.split("."), ""][1]
    return top if (tree / top).is_dir() or (tree / f"{top}.py").exists() else ""


def wrong_imports(tree: Path) -> list[str]:
    """``file:line: what is wrong`` for each import against the order and each file without a layer."""
    wrong = []
    for file in sorted(tree.rglob("*.py")):
        own = (module_of(file, tree) or [""])[0]
        place = f"{file.relative_to(tree.parent).as_posix()}"
        if own not in LAYERS:
            wrong.append(f"{place}: {own} has no layer")
            continue
        for line, name in imported_names(file, tree):
            layer = layer_of(name, tree)
            if name == f"{tree.name}.__version__":
                continue
            if layer not in LAYERS or LAYERS.index(layer) > LAYERS.index(own):
                wrong.append(f"{place}:{line}: {own or '__init__'} imports {name}")
    return wrong


# Modules that others may import past the face: file → why.
PAST_THE_FACE = {
    "rsconvert.compatibility.check": "it needs torch; the face serves a command that lists a table without it",
}


def past_faces(tree: Path) -> list[str]:
    """``file:line: what is wrong`` for each import of what lies inside a folder that the file is not in."""
    wrong = []
    for file in sorted(tree.rglob("*.py")):
        own = file.relative_to(tree).parts[:-1]
        for line, name in imported_names(file, tree):
            parts = _module(tree, name.split(".")[1:])
            shared = next((i for i, part in enumerate(parts) if own[i : i + 1] != (part,)), len(parts))
            if len(parts) > shared + 1 and not name.startswith(tuple(PAST_THE_FACE)):
                wrong.append(f"{file.relative_to(tree.parent).as_posix()}:{line}: {name} is inside of a package")
    return wrong


def _module(tree: Path, parts: list[str]) -> list[str]:
    """The folders and the module that a dotted name goes through; a function of a face hides a module of its name."""
    for i, part in enumerate(parts):
        folder = tree.joinpath(*parts[:i])
        face = folder / "__init__.py"
        if i and i + 1 == len(parts) and re.search(rf"\b{part}\b", face.read_text() if face.exists() else ""):
            return parts[:i]
        if not (folder / part).is_dir():
            return parts[: i + 1] if (folder / f"{part}.py").exists() else parts[:i]
    return parts


def test_packages_are_imported_through_their_faces() -> None:
    assert past_faces(TREE) == []


def test_imports_point_one_way() -> None:
    assert wrong_imports(TREE) == []


def test_errors_imports_nothing_of_the_package() -> None:
    assert list(imported_names(TREE / "errors.py", TREE)) == []


def test_only_the_entry_point_imports_cli() -> None:
    for file in TREE.rglob("*.py"):
        own = (module_of(file, TREE) or [""])[0]
        reached = {layer_of(name, TREE) for _, name in imported_names(file, TREE)}
        assert "cli" not in reached or own in ("cli", "__main__"), file


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A small package of the same shape, without a wrong import."""
    tree = tmp_path / PACKAGE
    for name in ("__init__", "errors", "checkpoint", "cli", "data/__init__", "data/views", "surgery/__init__"):
        file = tree / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tree / "surgery" / "bn.py").write_text("from ..data import resize\nfrom .. import errors\n")
    (tree / "cli.py").write_text("import torch\nimport rsconvert\nfrom . import checkpoint\n")
    return tree


def test_the_planted_tree_starts_clean(planted: Path) -> None:
    assert wrong_imports(planted) == []


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("errors.py", "from rsconvert import data", "errors imports rsconvert.data"),
        ("errors.py", "import rsconvert.data.views as views", "errors imports rsconvert.data.views"),
        ("data/views.py", "from ..surgery import bn", "data imports rsconvert.surgery.bn"),
        ("data/__init__.py", "from ..surgery.bn import X", "data imports rsconvert.surgery.bn.X"),
        ("surgery/bn.py", "def f():\n    from ..checkpoint import save", "surgery imports rsconvert.checkpoint.save"),
        ("surgery/bn.py", "import rsconvert", "surgery imports rsconvert"),
        ("surgery/bn.py", "from rsconvert import load", "surgery imports rsconvert.load"),
        ("__init__.py", "from .cli import main", "__init__ imports rsconvert.cli.main"),
        ("checkpoint.py", "from . import cli", "checkpoint imports rsconvert.cli"),
        ("extra.py", "", "extra has no layer"),
    ],
)
def test_a_planted_wrong_import_is_caught(planted: Path, file: str, source: str, expected: str) -> None:
    (planted / file).write_text(source)
    (found,) = wrong_imports(planted)
    assert found.startswith(f"rsconvert/{file}")
    assert found.endswith(expected)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from rsconvert.surgery.bn import X", "rsconvert.surgery.bn.X is inside of a package"),
        ("from rsconvert.surgery import bn", "rsconvert.surgery.bn is inside of a package"),
        ("from rsconvert.surgery import X", None),
        ("from rsconvert.data.samples import X", None),
        ("import rsconvert.surgery.bn", "rsconvert.surgery.bn is inside of a package"),
    ],
)
def test_an_import_past_a_face_is_caught(planted: Path, source: str, expected: str | None) -> None:
    (planted / "data" / "sets.py").write_text(source)
    assert past_faces(planted) == ([f"rsconvert/data/sets.py:1: {expected}"] if expected else [])


def test_training_may_read_evaluation_and_not_the_reverse(planted: Path) -> None:
    for name, source in (
        ("training", "from .evaluation import accuracy"),
        ("evaluation", "from .training import mred"),
    ):
        (planted / f"{name}.py").write_text(source)
    (found,) = wrong_imports(planted)
    assert found == "rsconvert/evaluation.py:1: evaluation imports rsconvert.training.mred"


def test_the_version_may_be_read_anywhere(planted: Path) -> None:
    (planted / "checkpoint.py").write_text("from . import __version__")
    assert wrong_imports(planted) == []
