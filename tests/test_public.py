"""What the package shows: its names, its version, and how little an import of it costs."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rsconvert
from rsconvert.cli import main

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "timm", "matplotlib", "numpy")


def is_empty(file: Path) -> bool:
    """Whether ``file`` holds nothing but a docstring."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def module_names() -> list[str]:
    files = [file for file in sorted((ROOT / "rsconvert").rglob("*.py")) if not is_empty(file)]
    dotted = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in dotted if not name.endswith("__main__")]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", module_names())
def test_a_module_lists_its_public_names(name: str) -> None:
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    assert [listed for listed in module.__all__ if not hasattr(module, listed)] == []


def test_the_package_exports_what_it_lists() -> None:
    """A lazy name counts when ``dir`` shows it; submodules and what __init__ itself imports do not count."""
    shown = {name for name in {*dir(rsconvert), *vars(rsconvert)} if not name.startswith("_")}
    own = {name for name in shown if str(getattr(getattr(rsconvert, name), "__module__", "")).startswith("rsconvert")}
    assert own == set(rsconvert.__all__) - {"__version__"}


def test_the_package_exports_few_names_beside_its_errors() -> None:
    errors = set(importlib.import_module("rsconvert.errors").__all__) - {"first_line", "install_hint", "one_line"}
    assert errors <= set(rsconvert.__all__)
    assert 8 <= len(set(rsconvert.__all__) - errors) <= 24


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = rsconvert.no_such_name


def test_importing_the_package_leaves_torch_alone() -> None:
    done = python("-c", f"import rsconvert, sys; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_help_answers_without_torch() -> None:
    done = python("-X", "importtime", "-m", "rsconvert", "--help")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert "rsconvert" in imported
    assert imported.isdisjoint(HEAVY)


def test_no_command_needs_torch_for_its_help() -> None:
    """All in one process: what one imports would still be there after the others."""
    shown = "for name in main.commands: main([name, '--help'], standalone_mode=False)"
    heavy = f"print([name for name in {HEAVY!r} if name in sys.modules])"
    done = python("-c", f"import sys\nfrom rsconvert.cli import main\n{shown}\n{heavy}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: ") == len(main.commands)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    versions = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == rsconvert.__version__
